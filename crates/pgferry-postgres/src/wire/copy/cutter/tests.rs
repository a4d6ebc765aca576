use super::*;

/// Messages as a server sends them, and what ends them.
fn messages(contents: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for content in contents {
        stream.push(b'd');
        stream.extend(u32::try_from(content.len() + 4).unwrap().to_be_bytes());
        stream.extend(content);
    }
    stream.extend(b"c\0\0\0\x04");
    stream
}

/// A row of one column in COPY's binary form.
fn row(value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap();
    [&[0, 1], length.to_be_bytes().as_slice(), value].concat()
}

/// As a server sends it: what opens the stream comes with the first row, or with its end.
fn binary(rows: &[Vec<u8>]) -> Vec<u8> {
    let mut contents = rows.to_vec();
    contents.push(TRAILER.to_vec());
    contents[0] = [HEADER.as_slice(), &contents[0]].concat();
    messages(&contents)
}

/// What comes of a stream that arrives in chunks of `chunk` bytes: parts of at least `enough` bytes,
/// moved through a frame of `full` bytes.
fn parts(
    stream: &[u8],
    is_binary: bool,
    chunk: usize,
    full: usize,
    enough: usize,
) -> Result<Vec<Vec<u8>>, WireError> {
    let mut cutter = Cutter::new(is_binary);
    let (mut parts, mut part, mut frame) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unread, mut coming) = (Vec::new(), stream.chunks(chunk));
    loop {
        let is_enough = part.len() + frame.len() >= enough;
        let (used, stop) = cutter.take(&unread, &mut frame, full, is_enough)?;
        assert!(frame.len() <= full, "{} bytes in a frame of {full}", frame.len());
        unread.drain(..used);
        match stop {
            Stop::Full => part.append(&mut frame),
            Stop::NeedsMore => unread.extend(coming.next().expect("it waits for what never comes")),
            Stop::Enough => {
                part.append(&mut frame);
                parts.push(std::mem::take(&mut part));
            }
            Stop::OtherMessage => {
                assert_eq!(unread[0], b'c');
                assert!(cutter.is_at_end());
                part.append(&mut frame);
                parts.push(part);
                return Ok(parts);
            }
        }
    }
}

#[test]
fn a_binary_stream_is_cut_between_rows_whatever_arrives_together() {
    let rows: Vec<Vec<u8>> = (0..9).map(|i: u8| row(&vec![i; usize::from(i) * 7])).collect();
    let stream = binary(&rows);
    for chunk in 1..stream.len() {
        for full in [1, 16, 1000] {
            let parts = parts(&stream, true, chunk, full, 60).unwrap();
            let mut left = rows.iter();
            for (at, part) in parts.iter().enumerate() {
                let mut whole: Vec<u8> = Vec::new();
                // A row may be begun while a frame has room, whatever is enough for the part.
                while whole.len() < part.len() {
                    whole.extend(left.next().unwrap());
                }
                assert_eq!(&whole, part, "part {at} ends within a row");
            }
            assert!(left.next().is_none(), "rows are missing");
            if full < 60 && chunk < 60 {
                assert!(parts.len() > 2, "{} parts", parts.len());
            }
        }
    }
}

#[test]
fn text_is_cut_between_messages() {
    let rows: Vec<Vec<u8>> = (0..9).map(|i| format!("{i}\t\\N\tx\n").into_bytes()).collect();
    let stream = messages(&rows);
    for chunk in 1..stream.len() {
        let parts = parts(&stream, false, chunk, 8, 1).unwrap();
        assert_eq!(parts.concat(), rows.concat());
        assert!(parts.iter().all(|part| part.ends_with(b"\n")));
    }
    assert_eq!(parts(&stream, false, 1, 8, 1).unwrap().len(), 9);
}

#[test]
fn the_last_part_ends_with_the_stream_and_none_is_empty() {
    let rows = vec![row(b"one"), row(b"two")];
    let both = rows.concat();
    assert_eq!(parts(&binary(&rows), true, 1, 100, both.len()).unwrap(), [both]);
    let text = [b"one\n".to_vec(), b"two\n".to_vec()];
    assert_eq!(parts(&messages(&text), false, 1, 100, 8).unwrap(), [b"one\ntwo\n".to_vec()]);
}

#[test]
fn a_row_larger_than_a_frame_goes_through_it() {
    let large = row(&[7; 1000]);
    let rows = vec![large.clone(), row(b"small"), large];
    let parts = parts(&binary(&rows), true, 64, 100, 1).unwrap();
    assert!(parts.len() > 1 && parts[0] == rows[0], "the first part is not the first row");
    assert!(parts.concat() == rows.concat(), "what came out is not what went in");
}

#[test]
fn a_row_that_begins_like_the_end_is_none() {
    // Only where a number of columns stands does it end the stream.
    let rows = vec![row(TRAILER), row(&[0xff; 40])];
    assert_eq!(parts(&binary(&rows), true, 3, 100, usize::MAX).unwrap(), [rows.concat()]);
}

#[test]
fn a_table_without_rows_is_one_empty_part() {
    let empty: [Vec<u8>; 1] = [Vec::new()];
    assert_eq!(parts(&binary(&[]), true, 1, 100, 1).unwrap(), empty);
    assert_eq!(parts(&messages(&[]), false, 1, 100, 1).unwrap(), empty);
}

#[test]
fn what_opens_a_stream_may_come_alone() {
    let stream = messages(&[HEADER.to_vec(), row(b"one"), TRAILER.to_vec()]);
    assert_eq!(parts(&stream, true, 1, 100, 1).unwrap(), [row(b"one")]);
}

#[test]
fn a_stream_that_is_none_is_refused() {
    for contents in [
        vec![b"PGCOPY\n\xff\r\n\0\0\x01\0\0\0\0\0\0 with oids".to_vec()],
        vec![row(b"no header, and long enough for one")],
        vec![HEADER.to_vec(), vec![0]],
        vec![HEADER.to_vec(), [TRAILER.as_slice(), b"more"].concat()],
        vec![HEADER.to_vec(), TRAILER.to_vec(), row(b"late")],
    ] {
        let refused = parts(&messages(&contents), true, 1, 100, 1);
        assert!(matches!(refused, Err(WireError::Protocol(_))), "{contents:?}: {refused:?}");
    }
}
