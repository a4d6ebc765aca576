-- What faults are planted in beside wide.sql: kinds of keys, values that only their text tells apart,
-- large values, partitions, and objects that are no rows. Run as the owner.
CREATE SCHEMA plant;
CREATE EXTENSION citext SCHEMA plant;
CREATE DOMAIN plant.amount AS numeric CHECK (value > -1000);
CREATE DOMAIN plant.blank AS bpchar;
CREATE TYPE plant.state AS ENUM ('new', 'done');
CREATE TYPE plant.place AS (street text, zip text);

CREATE TABLE plant.texts (id int PRIMARY KEY, free bpchar, blank plant.blank, anyhow plant.citext,
    words varchar(60)[], body text, at plant.place, amount plant.amount, amounts plant.amount[], many int4multirange,
    during tstzrange, grid int[][], raw bytea, moments interval[], net inet, path xml, json json, flags bit varying(40));
INSERT INTO plant.texts
SELECT n, 'x', 'x', 'Case ' || n, ARRAY['a', NULL, 'b ' || n], repeat(md5(n::text), 4000), ROW('street ' || n, NULL)::plant.place,
       n + 0.5, ARRAY[n, 1.5], int4multirange(int4range(n, n + 2), int4range(n + 5, n + 9)),
       tstzrange('2026-01-01Z'::timestamptz + n * interval '1 hour', NULL), ARRAY[[n, 2], [3, 4]],
       decode(repeat(md5(n::text), 2000), 'hex'), ARRAY[n * interval '1 day', NULL], '10.0.0.1/24', '<a b="1"/>',
       '{"a": 1, "b": [1, 2]}', B'101'
  FROM generate_series(1, 60) AS n;

CREATE TABLE plant.composed (a int, b text, c timestamptz, v text, PRIMARY KEY (a, b, c));
INSERT INTO plant.composed SELECT n % 10, 'b ' || n, timestamptz '2026-01-01Z' + n * interval '1 day', 'v ' || n
  FROM generate_series(1, 300) AS n;
CREATE TABLE plant.by_uuid (id uuid PRIMARY KEY, v int);
INSERT INTO plant.by_uuid SELECT md5(n::text)::uuid, n FROM generate_series(1, 300) AS n;
CREATE TABLE plant.by_number (id numeric PRIMARY KEY, v int);
INSERT INTO plant.by_number SELECT n / 2.0, n FROM generate_series(1, 100) AS n;
CREATE TABLE plant.by_case (id plant.citext PRIMARY KEY, v int);
INSERT INTO plant.by_case SELECT 'Key ' || n, n FROM generate_series(1, 100) AS n;
CREATE TABLE plant.by_blank (id char(8) PRIMARY KEY, v text);
INSERT INTO plant.by_blank SELECT 'k' || n, 'v' FROM generate_series(1, 100) AS n;
CREATE TABLE plant."Odd ""name" ("a key" int PRIMARY KEY, "o'th""er" text);
INSERT INTO plant."Odd ""name" SELECT n, 'v' FROM generate_series(1, 50) AS n;
CREATE TABLE plant.named (id int PRIMARY KEY, code text UNIQUE);
INSERT INTO plant.named SELECT n, 'code ' || n FROM generate_series(1, 50) AS n;
CREATE TABLE plant.numbered (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
INSERT INTO plant.numbered (v) SELECT 'v ' || n FROM generate_series(1, 50) AS n;
CREATE TABLE plant.derived (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED);
INSERT INTO plant.derived (id, v) SELECT n, n FROM generate_series(1, 50) AS n;
CREATE TABLE plant.split (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE plant.split_2025 PARTITION OF plant.split FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE plant.split_2026 PARTITION OF plant.split FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO plant.split SELECT n, date '2025-06-01' + n, 'v' FROM generate_series(1, 400) AS n;
-- More than one range.
CREATE TABLE plant.long (id bigint PRIMARY KEY, v text);
INSERT INTO plant.long SELECT n, repeat('v', 400) FROM generate_series(1, 170000) AS n;

CREATE TABLE plant.loose (a int, b text);
INSERT INTO plant.loose SELECT n, 'b ' || n FROM generate_series(1, 200) AS n;
CREATE TABLE plant.twins (a int);
INSERT INTO plant.twins SELECT n % 5 FROM generate_series(1, 100) AS n;

-- Definitions, each on a table of its own.
CREATE FUNCTION plant.answer() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 42; END';
CREATE FUNCTION plant.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
DO $$
DECLARE n int;
BEGIN
    FOR n IN 1..40 LOOP
        EXECUTE format('CREATE TABLE plant.d%s (id int PRIMARY KEY, a int NOT NULL DEFAULT 7, b text, '
            'CONSTRAINT d%1$s_small CHECK (a < 1000))', n);
        EXECUTE format('CREATE INDEX d%s_a ON plant.d%1$s (a)', n);
        EXECUTE format('INSERT INTO plant.d%s SELECT n, n, ''b'' FROM generate_series(1, 10) AS n', n);
        EXECUTE format('CREATE TRIGGER note BEFORE UPDATE ON plant.d%s FOR EACH ROW EXECUTE FUNCTION plant.note()', n);
    END LOOP;
END $$;
ALTER TABLE plant.d20 ADD CONSTRAINT d20_parent FOREIGN KEY (a) REFERENCES plant.d21 (id);
ALTER TABLE plant.d22 ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON plant.d22 USING (a > 0);
ALTER TABLE plant.d23 ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON plant.d23 USING (true);
ALTER TABLE plant.d24 ENABLE ROW LEVEL SECURITY;
ALTER TABLE plant.d24 FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON plant.d24 USING (true);
CREATE RULE quiet AS ON DELETE TO plant.d25 DO NOTHING;
CREATE STATISTICS plant.d26_stats ON a, b FROM plant.d26;
CREATE VIEW plant.seen AS SELECT id FROM plant.d27;
CREATE MATERIALIZED VIEW plant.kept AS SELECT count(*) AS n FROM plant.d28;
CREATE SEQUENCE plant.s1; CREATE SEQUENCE plant.s2; CREATE SEQUENCE plant.s3; CREATE SEQUENCE plant.s4;
CREATE SEQUENCE plant.s5; CREATE SEQUENCE plant.s6; CREATE SEQUENCE plant.down INCREMENT -1;
SELECT setval('plant.s1', 500), setval('plant.s2', 500), setval('plant.s3', 500), setval('plant.down', -500);

SELECT lo_from_bytea(70000 + n, convert_to(repeat('x', 1 + 60 * n), 'UTF8')) FROM generate_series(1, 20) AS n;
SELECT lo_put(70020, 2000000, 'behind a hole');
SELECT lo_create(70021);

GRANT USAGE ON SCHEMA plant TO app, reader;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA plant TO app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA plant TO app;
GRANT SELECT (id) ON plant.d30 TO reader;
