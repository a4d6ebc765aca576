-- What an administrator does once in each database before pgferry comes. USAGE for PUBLIC,
-- because pglogical's hook looks at its schema in every DROP of every role; no EXECUTE for PUBLIC,
-- because none of its functions checks who calls.
CREATE EXTENSION pglogical;
GRANT USAGE ON SCHEMA pglogical TO PUBLIC;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical TO pgferry;
GRANT SELECT ON ALL TABLES IN SCHEMA pglogical TO pgferry;

-- Functions are rows of the database they are in, so this is granted here and not with the roles.
GRANT EXECUTE ON FUNCTION
    pg_replication_origin_create(text),
    pg_replication_origin_drop(text),
    pg_replication_origin_oid(text),
    pg_replication_origin_advance(text, pg_lsn),
    pg_replication_origin_progress(text, boolean),
    pg_replication_origin_session_setup(text),
    pg_replication_origin_session_reset(),
    pg_replication_origin_session_is_setup(),
    pg_replication_origin_session_progress(boolean),
    pg_replication_origin_xact_setup(pg_lsn, timestamptz),
    pg_replication_origin_xact_reset()
    TO pgferry;
