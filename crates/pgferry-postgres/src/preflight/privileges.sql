-- What the looking role may do, by what the catalogs say and not by trying.
-- USAGE of a role means that its rights are inherited: sessions of pgferry never SET ROLE.
WITH me AS (
    SELECT * FROM pg_catalog.pg_roles WHERE rolname = current_user
),
granted AS (
    SELECT r.rolname
    FROM pg_catalog.pg_roles AS r, me
    WHERE r.rolname IN ('pg_monitor', 'pg_read_all_settings', 'pg_read_all_stats',
                        'pg_signal_backend', 'rds_replication', 'rds_superuser')
      AND pg_catalog.pg_has_role(me.oid, r.oid, 'USAGE')
)
SELECT me.rolname::text AS role,
       me.rolsuper AS superuser,
       me.rolsuper OR me.rolbypassrls AS bypasses_row_security,
       me.rolsuper OR me.rolreplication
           OR EXISTS (SELECT FROM granted WHERE rolname = 'rds_replication') AS replication,
       me.rolsuper OR me.rolcreaterole AS create_role,
       me.rolsuper OR EXISTS (SELECT FROM granted WHERE rolname = 'pg_monitor')
           OR (SELECT count(*) FROM granted
               WHERE rolname IN ('pg_read_all_settings', 'pg_read_all_stats')) = 2 AS monitor,
       me.rolsuper
           OR EXISTS (SELECT FROM granted WHERE rolname = 'pg_signal_backend') AS signal_backend,
       me.rolsuper
           OR EXISTS (SELECT FROM granted WHERE rolname = 'rds_superuser') AS creates_any_extension,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS create_in_database,
       -- Without EXECUTE the copy cannot stamp its commits, nor the hand-over move the origin.
       ARRAY(SELECT p.oid::pg_catalog.regprocedure::text
             FROM pg_catalog.pg_proc AS p
             WHERE p.pronamespace = 'pg_catalog'::regnamespace
               AND p.proname IN (
                   'pg_replication_origin_create', 'pg_replication_origin_drop',
                   'pg_replication_origin_advance', 'pg_replication_origin_oid',
                   'pg_replication_origin_progress', 'pg_replication_origin_session_setup',
                   'pg_replication_origin_session_reset', 'pg_replication_origin_xact_setup')
               -- Before 14 a superuser alone may use origins, whatever is granted.
               AND NOT (pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
                        AND (me.rolsuper OR pg_catalog.current_setting('server_version_num')::int >= 140000))
             ORDER BY 1) AS origin_functions_refused
FROM me
