use super::*;

const NODE: &str = "host=db port=5432 dbname=d user=u";

#[track_caller]
fn check(text: &str, expected: &str) {
    let seen = match Dsn::parse(text) {
        Ok(dsn) => dsn.to_string(),
        Err(error) => format!("refused: {error}"),
    };
    assert_eq!(seen, expected, "{text}");
}

#[test]
fn reads_the_keyword_form_with_its_quoting() {
    check("host=db dbname=d user=u", "host=db port=5432 dbname=d user=u sslmode=prefer");
    check(
        "  user = 'o\\'neil'\tdbname='my db' host=/run/postgresql port=6000 sslmode=disable\n",
        "host=/run/postgresql port=6000 dbname='my db' user='o\\'neil' sslmode=disable",
    );
    check(
        "host=a host=db dbname=back\\\\slash user=two\\ words port='' application_name=''",
        "host=db port=5432 dbname='back\\\\slash' user='two words' sslmode=prefer",
    );
}

#[test]
fn reads_the_uri_form() {
    for scheme in ["postgres", "postgresql"] {
        check(
            &format!("{scheme}://u@db:6000/d?sslmode=verify-full&sslrootcert=/ca.pem"),
            "host=db port=6000 dbname=d user=u sslmode=verify-full sslrootcert=/ca.pem",
        );
    }
    check("postgresql://u@[::1]:6000/d", "host=::1 port=6000 dbname=d user=u sslmode=prefer");
    check("postgresql://u@[::1]/d", "host=::1 port=5432 dbname=d user=u sslmode=prefer");
    check("postgresql:///d?host=/tmp&user=u", "host=/tmp port=5432 dbname=d user=u sslmode=prefer");
    check(
        "postgresql://a%40b@db/my%20db",
        "host=db port=5432 dbname='my db' user=a@b sslmode=prefer",
    );
    check("postgresql://u@db/d?host=h2&", "host=h2 port=5432 dbname=d user=u sslmode=prefer");
    check("postgresql://u@db/d?foo=", "refused: unknown word \"foo\"");
    check("postgresql://u@db/d?ssl=true", "host=db port=5432 dbname=d user=u sslmode=require");
}

#[test]
fn its_own_text_reads_back_as_itself() {
    for text in [
        "host=db dbname='a b' user='o\\'neil \\\\' options='-c search_path=a\\\\,b -c x=\\'y\\''",
        "postgresql://u%20%27%5C@[fe80::1]:1/d?application_name=%C3%A9",
        NODE,
    ] {
        let dsn = Dsn::parse(text).unwrap();
        assert_eq!(Dsn::parse(&dsn.to_string()).unwrap(), dsn, "{text}");
    }
}

#[test]
fn answers_by_type() {
    let dsn = Dsn::parse(&format!(
        "{NODE} sslmode=verify-ca sslrootcert=/ca.pem connect_timeout=10 options='-c a=b'"
    ))
    .unwrap();
    assert_eq!((dsn.host(), dsn.port(), dsn.dbname(), dsn.user()), ("db", 5432, "d", "u"));
    assert_eq!(dsn.ssl_mode(), SslMode::VerifyCa);
    assert_eq!(dsn.ssl_root_cert(), Some(Path::new("/ca.pem")));
    assert_eq!(dsn.options(), Some("-c a=b"));
    assert_eq!(dsn.connect_timeout(), Some(Duration::from_secs(10)));
    for (timeout, expected) in [("0", None), ("-1", None), ("2", Some(Duration::from_secs(2)))] {
        assert_eq!(dsn.with("connect_timeout", timeout).connect_timeout(), expected, "{timeout}");
    }
    assert_eq!(dsn.with("sslrootcert", "system").ssl_root_cert(), None);
    assert_eq!(dsn.get("keepalives"), None);
}

#[test]
fn with_replaces_one_word() {
    let dsn = Dsn::parse(NODE).unwrap().with("options", "-c lock_timeout=0").with("user", "v");
    check(
        &dsn.to_string(),
        "host=db port=5432 dbname=d user=v options='-c lock_timeout=0' sslmode=prefer",
    );
    assert_eq!(dsn.with("options", "").with("user", "u"), Dsn::parse(NODE).unwrap());
}

#[test]
fn the_password_is_in_the_complete_text_only() {
    let dsn = Dsn::parse(NODE).unwrap();
    let password = Secret::new("it's \\ a secret".into());
    assert_eq!(
        dsn.to_conninfo(Some(&password)).expose(),
        "host=db port=5432 dbname=d user=u sslmode=prefer password='it\\'s \\\\ a secret'"
    );
    assert_eq!(dsn.to_conninfo(None).expose(), dsn.to_conninfo_without_password());
    assert_eq!(
        dsn.to_conninfo(Some(&Secret::new(String::new()))).expose(),
        format!("{dsn} password=''")
    );
    let smuggled = dsn.with("password", "hunter2");
    assert!(!format!("{smuggled} {smuggled:?}").contains("hunter2"));
}

#[test]
fn refuses_what_a_node_cannot_be() {
    check("", "refused: \"host\" is missing; \"dbname\" is missing; \"user\" is missing");
    check("host='' dbname=d user=u", "refused: \"host\" is missing");
    check("host=a,b dbname=d user=u", "refused: it names several servers");
    check("postgresql://u@a:1,b:2/d", "refused: it names several servers");
    for port in ["0", "65536", "x", "-1"] {
        check(&format!("{NODE} port={port}"), "refused: \"port\" is not a number from 1 to 65535");
    }
    check(&format!("{NODE} sslmode=on"), "refused: \"sslmode\" is not a mode of libpq");
    check(
        &format!("{NODE} connect_timeout=10s"),
        "refused: \"connect_timeout\" is not a whole number",
    );
    check(&format!("{NODE} service=x"), "refused: \"service\" cannot be used here");
    check(&format!("{NODE} user=a\0b"), "refused: it contains a NUL character");
}

#[test]
fn an_unknown_word_names_the_nearest() {
    let error = Dsn::parse(&format!("{NODE} sslmod=require foo=1")).unwrap_err();
    assert_eq!(error.faults[0].message, "unknown word \"sslmod\"");
    assert_eq!(error.faults[0].hint, "the nearest word of libpq is \"sslmode\"");
    assert_eq!(error.faults[1].message, "unknown word \"foo\"");
}

#[test]
fn a_password_is_refused_in_every_spelling_and_never_repeated() {
    for text in [
        "host=db dbname=d user=u password=hunter2",
        "host=db dbname=d user=u password='hunter2",
        "host=db dbname=d user=u password=my hunter2",
        "host=db dbname=d user=u password=my hunter2=x",
        "host=db dbname=d user=u pasword=my hunter2=x",
        "host=db dbname=d user=u sslpassword=hunter2",
        "postgresql://u:hunter2@db/d",
        "postgresql://u:hun/hunter2@db/d",
        "postgresql://u:p@hunter2@db/d",
        "postgresql://u:%hunter2@db/d",
        "postgresql://u@db/d?password=hunter2",
        "postgresql://u@db/d?password=a&hunter2",
        "postgresql://u@db/d?password=a=hunter2",
        "host=db dbname=d user=u port=hunter2",
    ] {
        let error = Dsn::parse(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error:?}");
    }
    check(&format!("{NODE} password="), "refused: it contains a password");
}

#[test]
fn a_form_that_is_none_is_refused_with_its_place() {
    check("host", "refused: a word and \"=\" are expected at character 1");
    check("host=db =x", "refused: a word and \"=\" are expected at character 9");
    check("host='db", "refused: the quote at character 6 is not closed");
    check("postgresql://u@[::1/d", "refused: the host of the URI is malformed");
    check(
        "postgresql://u@db/d?x",
        "refused: a parameter after \"?\" is not of the form word=value",
    );
}
