-- One table with a column of each type that a comparison has to tell apart, and rows with what is
-- equal under `=` and not the same: -0 and 0, 1.0 and 1.00, an interval's two spellings. Run as the
-- owner.
CREATE SCHEMA wide;
CREATE TYPE wide.mood AS ENUM ('calm', 'cross');
CREATE TYPE wide.pair AS (a int, b numeric);
CREATE DOMAIN wide.code AS text CHECK (value <> '');
CREATE COLLATION wide.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

CREATE TABLE wide.types (
    id bigint PRIMARY KEY,
    yes bool, small int2, whole int4, large int8, exact numeric, exact2 numeric(12, 2),
    single float4, double float8, letter "char", word text, short varchar(20), padded char(10),
    bytes bytea, unique_id uuid, day date, moment timestamp, instant timestamptz, clock time,
    clock_zone timetz, span interval, list int[], texts text[], doc json, docb jsonb, mark xml,
    flags bit(8), bits varbit, address inet, net cidr, mac macaddr, search tsvector, price money,
    spot point, shape polygon, around int4range, amounts numrange, feeling wide.mood,
    both_of wide.pair, code wide.code, kind regclass, position pg_lsn, sightless text COLLATE wide.blind,
    doubled numeric GENERATED ALWAYS AS (exact * 2) STORED
);
INSERT INTO wide.types
SELECT n, n % 2 = 0, n % 100, n, n::int8 << 33, n / 7.0, n / 3.0, n / 3.0, n / 3.0, chr(65 + n % 26)::"char",
       'word ' || n, 'short ' || n, 'pad ' || n, decode(md5(n::text), 'hex'), md5(n::text)::uuid,
       date '2026-01-01' + n, timestamp '2026-01-01' + n * interval '1 second 7 microseconds',
       timestamptz '2026-01-01Z' + n * interval '1 second', time '00:00' + n * interval '1 second',
       timetz '00:00+02' + n * interval '1 second', n * interval '1 hour', ARRAY[n, n + 1, NULL],
       ARRAY['a ' || n, NULL, ''], json_build_object('n', n), jsonb_build_object('n', n, 'deep', jsonb_build_array(
           n, jsonb_build_object('x', 'value ' || n))), xmlelement(name a, n), (n % 256)::bit(8), n::bit(16)::varbit,
       '10.0.0.1'::inet + n, '10.0.0.0/8', '08:00:2b:01:02:03', to_tsvector('simple', 'word ' || n), n::numeric::money,
       point(n, n), polygon(box(point(0, 0), point(n, n))), int4range(n, n + 5), numrange(n, n + 0.50),
       CASE WHEN n % 2 = 0 THEN 'calm' ELSE 'cross' END::wide.mood, ROW(n, n / 2.0)::wide.pair, 'code ' || n,
       'pg_class', ('0/' || to_hex(23803720 + n))::pg_lsn, 'Sightless ' || n
  FROM generate_series(1, 3000) AS n;
INSERT INTO wide.types (id, exact, double, single, span, docb, word, padded, list, sightless) VALUES
    (100001, 1.0, '-0', '-0', '1 day', '{"a": 1.0}', '', 'x', '[2:3]={1,2}', 'ABC'),
    (100002, 1.00, '0', '0', '24:00:00', '{"a": 1.00}', NULL, 'x', '{1,2}', 'abc'),
    (100003, 'NaN', 'NaN', 'Infinity', '-1 day +24:00', 'null', 'a ', 'x ', '{}', ''),
    (100004, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- A key whose order depends on a collation, and one of several columns, the first of them an enum.
CREATE TABLE wide.by_text (name text PRIMARY KEY, n int NOT NULL);
INSERT INTO wide.by_text SELECT 'name ' || n, n FROM generate_series(1, 2000) AS n;
CREATE TABLE wide.by_mood (feeling wide.mood, code wide.code, n int, PRIMARY KEY (feeling, code));
INSERT INTO wide.by_mood
SELECT CASE WHEN n % 2 = 0 THEN 'calm' ELSE 'cross' END::wide.mood, 'code ' || n, n FROM generate_series(1, 500) AS n;
-- No column at all, and none that is not the key.
CREATE TABLE wide.nothing ();
INSERT INTO wide.nothing SELECT FROM generate_series(1, 3);
CREATE TABLE wide.loose (a int, b text);
INSERT INTO wide.loose SELECT n % 10, 'same' FROM generate_series(1, 1000) AS n;
CREATE SEQUENCE wide.counter;
SELECT setval('wide.counter', 500);

GRANT USAGE ON SCHEMA wide TO app;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA wide TO app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA wide TO app;
