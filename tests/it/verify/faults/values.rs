//! Faults in a value: a row of a key that both sides have, and one column of it, or the columns that are
//! computed from it.

use super::{Fault, row_in};

/// Kind, id of `wide.types`, what is set, the columns that are told.
type InTypes = (&'static str, i64, &'static str, &'static [&'static str]);

const IN_TYPES: &[InTypes] = &[
    ("changed value", 1, "word = 'other'", &["word"]),
    ("changed value", 2, "yes = NOT yes", &["yes"]),
    ("changed value", 3, "small = small + 1", &["small"]),
    ("changed value", 4, "whole = -whole", &["whole"]),
    // What PostgreSQL's own hash of 64 bits folds away.
    ("changed value", 5, "large = large # ((1::bigint << 40) | (1 << 8))", &["large"]),
    ("changed value", 11, "letter = 'z'", &["letter"]),
    ("changed value", 12, "unique_id = md5('else')::uuid", &["unique_id"]),
    ("changed value", 13, "day = day + 1", &["day"]),
    ("changed value", 14, "mac = '08:00:2b:01:02:04'", &["mac"]),
    ("changed value", 15, "feeling = 'calm'", &["feeling"]),
    ("changed value", 16, "kind = 'pg_type'", &["kind"]),
    ("changed value", 17, "position = '0/1'", &["position"]),
    ("changed value", 18, "short = NULL", &["short"]),
    ("1.0 against 1.00", 100_001, "exact = 1.00", &["exact", "doubled"]),
    (
        "1.0 against 1.00",
        19,
        "docb = '{\"n\": 19.0, \"deep\": [19, {\"x\": \"value 19\"}]}'",
        &["docb"],
    ),
    ("1.0 against 1.00", 20, "amounts = '[20.0,20.50)'", &["amounts"]),
    ("1.0 against 1.00", 21, "both_of = ROW(21, 10.50)", &["both_of"]),
    ("-0 against 0", 100_002, "single = '-0', double = '-0'", &["single", "double"]),
    ("NULL against empty", 23, "word = ''", &["word"]),
    ("NULL against empty", 22, "texts = ARRAY['a 22', '', '']", &["texts"]),
    ("NULL against empty", 25, "texts = ARRAY['a 25', 'NULL', '']", &["texts"]),
    ("NULL against empty", 26, "word = NULL, bytes = ''", &["word", "bytes"]),
    ("NULL against empty", 27, "around = 'empty'", &["around"]),
    ("NULL against empty", 100_003, "list = NULL, docb = NULL", &["list", "docb"]),
    ("NULL against empty", 100_004, "word = '', bytes = '', bits = ''", &["word", "bytes", "bits"]),
    ("trailing space", 31, "word = word || ' '", &["word"]),
    ("trailing space", 32, "short = short || ' '", &["short"]),
    ("trailing space", 33, "code = code || ' '", &["code"]),
    ("trailing space", 34, "texts = ARRAY['a 34 ', NULL, '']", &["texts"]),
    ("trailing space", 35, "docb = jsonb_set(docb, '{deep,1,x}', '\"value 35 \"')", &["docb"]),
    ("padding", 36, "padded = 'pad 36x'", &["padded"]),
    ("padding", 37, "padded = ' pad 37'", &["padded"]),
    ("deep in jsonb", 38, "docb = jsonb_set(docb, '{deep,1,x}', '\"else\"')", &["docb"]),
    ("deep in jsonb", 39, "docb = jsonb_set(docb, '{deep,0}', '\"39\"')", &["docb"]),
    ("deep in jsonb", 40, "docb = jsonb_set(docb, '{deep,1,y}', 'null')", &["docb"]),
    ("deep in jsonb", 41, "docb = docb #- '{deep,1,x}'", &["docb"]),
    ("deep in jsonb", 42, "docb = '{\"n\": 42, \"deep\": [{\"x\": \"value 42\"}, 42]}'", &["docb"]),
    ("deep in jsonb", 43, "doc = '{\"n\" :43}'", &["doc"]),
    ("deep in jsonb", 44, "doc = '{\"n\" : 43, \"n\" : 44}'", &["doc"]),
    ("float's last bit", 300, "double = 100.00000000000001", &["double"]),
    ("float's last bit", 303, "single = 101.00001", &["single"]),
    ("float's last bit", 45, "spot = point(45.00000000000001, 45)", &["spot"]),
    (
        "float's last bit",
        46,
        "shape = polygon(box(point(0, 0), point(46, 46.00000000000001)))",
        &["shape"],
    ),
    ("time", 47, "span = '1 day 23:00'", &["span"]),
    ("time", 48, "span = '2 days'", &["span"]),
    ("time", 24, "span = '1 day'", &["span"]),
    ("time", 720, "span = '1 mon'", &["span"]),
    ("time", 49, "instant = instant + interval '1 microsecond'", &["instant"]),
    ("time", 50, "instant = instant + interval '4294967297 microseconds'", &["instant"]),
    ("time", 51, "instant = 'infinity'", &["instant"]),
    ("time", 52, "moment = moment - interval '1 microsecond'", &["moment"]),
    // The same instant in another zone.
    ("time", 53, "clock_zone = clock_zone AT TIME ZONE interval '01:00'", &["clock_zone"]),
    ("time", 54, "clock = '24:00'", &["clock"]),
    ("case", 55, "sightless = upper(sightless)", &["sightless"]),
    ("case", 56, "word = upper(word)", &["word"]),
    ("array", 57, "list = '[0:2]={57,58,NULL}'", &["list"]),
    ("array", 58, "list = ARRAY[[58, 59, NULL]]", &["list"]),
    ("array", 59, "list = ARRAY[60, 59, NULL]", &["list"]),
    ("array", 60, "list = ARRAY[60, 61]", &["list"]),
    ("composite", 61, "both_of = ROW(61, NULL)", &["both_of"]),
    ("range", 62, "amounts = '[62,62.50]'", &["amounts"]),
    ("range", 63, "around = int4range(63, 69)", &["around"]),
    ("bit", 64, "flags = ~flags", &["flags"]),
    ("bit", 65, "bits = bits || B'0'", &["bits"]),
    ("bit", 66, "bits = set_bit(bits, 15, 1 - get_bit(bits, 15))", &["bits"]),
    ("xml, tsvector, money", 67, "mark = '<a>0</a>'", &["mark"]),
    ("xml, tsvector, money", 68, "mark = '<a >68</a>'", &["mark"]),
    ("xml, tsvector, money", 69, "search = setweight(search, 'A')", &["search"]),
    ("xml, tsvector, money", 70, "search = strip(search)", &["search"]),
    ("xml, tsvector, money", 71, "price = price + 0.01::numeric::money", &["price"]),
    ("bytea", 72, "bytes = set_byte(bytes, 15, 255 - get_byte(bytes, 15))", &["bytes"]),
    ("bytea", 73, "bytes = bytes || '\\x00'", &["bytes"]),
    ("address", 74, "address = '10.0.0.75/24'", &["address"]),
    ("address", 75, "net = '10.0.0.0/9'", &["net"]),
    ("generated column", 76, "exact = exact + 1", &["exact", "doubled"]),
];

/// Kind, id of `plant.texts`, what is set, the column that is told.
const IN_TEXTS: &[(&str, i64, &str, &str)] = &[
    ("padding", 1, "free = 'x '", "free"),
    ("padding", 2, "blank = 'x '", "blank"),
    ("trailing space", 3, "at = ROW('street 3 ', NULL)", "at"),
    ("trailing space", 4, "words = ARRAY['a', NULL, 'b 4 ']", "words"),
    ("trailing space", 5, "anyhow = anyhow || ' '", "anyhow"),
    ("NULL against empty", 6, "at = ROW('street 6', '')", "at"),
    ("NULL against empty", 7, "at = ROW(NULL, NULL)", "at"),
    ("NULL against empty", 8, "blank = NULL", "blank"),
    ("NULL against empty", 9, "during = 'empty'", "during"),
    ("case", 10, "anyhow = upper(anyhow::text)", "anyhow"),
    ("case", 11, "anyhow = 'case 11'", "anyhow"),
    ("toasted", 12, "body = overlay(body placing 'x' from length(body))", "body"),
    ("toasted", 13, "body = body || ' '", "body"),
    ("toasted", 14, "raw = set_byte(raw, 31999, 255 - get_byte(raw, 31999))", "raw"),
    ("toasted", 15, "body = 'x' || substr(body, 2)", "body"),
    ("domain", 16, "amount = 16.50", "amount"),
    ("domain", 17, "amount = -amount", "amount"),
    ("domain", 18, "amounts = ARRAY[18.0, 1.5]", "amounts"),
    ("composite", 19, "at = ROW('street 19', 'NULL')", "at"),
    ("range", 20, "many = int4multirange(int4range(20, 22))", "many"),
    ("range", 21, "during = tstzrange(lower(during), 'infinity')", "during"),
    ("array", 22, "grid = ARRAY[22, 2, 3, 4]", "grid"),
    ("array", 23, "grid = ARRAY[[23, 3], [2, 4]]", "grid"),
    ("time", 24, "moments = ARRAY[interval '23 days 24:00', NULL]", "moments"),
    ("address", 25, "net = '10.0.0.1'", "net"),
    ("xml, tsvector, money", 26, "path = '<a b=\"1\"></a>'", "path"),
    ("deep in jsonb", 27, "json = '{\"a\": 1, \"b\": [1, 2, 3]}'", "json"),
    ("bit", 28, "flags = B'1010'", "flags"),
];

/// Faults in a value, one row for each.
pub(super) fn faults() -> Vec<Fault> {
    let fault = |kind, table: &str, id: i64, set: &str, columns: &[&str]| {
        let wanted = row_in(table, &[&id.to_string()], "different", columns);
        Fault::new(kind, format!("UPDATE {table} SET {set} WHERE id = {id}"), vec![wanted])
    };
    let in_types = IN_TYPES
        .iter()
        .map(|(kind, id, set, columns)| fault(*kind, "wide.types", *id, set, columns));
    let in_texts = IN_TEXTS
        .iter()
        .map(|(kind, id, set, column)| fault(*kind, "plant.texts", *id, set, &[*column]));
    in_types.chain(in_texts).collect()
}
