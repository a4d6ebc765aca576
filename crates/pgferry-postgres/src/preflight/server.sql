-- The server and the database that the session is in.
-- datlocprovider exists from PostgreSQL 15 on, the locale of ICU under two names: read through
-- JSON, where a column that a version lacks is NULL instead of an error.
SELECT pg_catalog.current_setting('server_version_num')::int AS version_num,
       pg_catalog.split_part(pg_catalog.current_setting('server_version'), ' ', 1) AS version,
       pg_catalog.current_database()::text AS database_name,
       d.oid AS database_oid,
       pg_catalog.to_char(pg_catalog.pg_postmaster_start_time() AT TIME ZONE 'UTC',
                          'YYYY-MM-DD HH24:MI:SS.US') AS started_at,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       pg_catalog.pg_encoding_to_char(d.encoding)::text AS encoding,
       d.datcollate::text AS collate_locale,
       d.datctype::text AS ctype_locale,
       CASE coalesce(j.row ->> 'datlocprovider', 'c')
           WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE j.row ->> 'datlocprovider'
       END AS locale_provider,
       coalesce(j.row ->> 'datlocale', j.row ->> 'daticulocale') AS provider_locale
FROM pg_catalog.pg_database AS d
CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(d) AS row) AS j
WHERE d.datname = pg_catalog.current_database()
