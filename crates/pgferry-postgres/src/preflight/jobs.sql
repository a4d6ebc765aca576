-- Active jobs of pg_cron for this database; an error says that it is not installed here.
-- Row security shows a role its own jobs only: `hidden` says that others may exist.
SELECT pg_catalog.row_security_active('cron.job'::regclass) AS hidden,
       ARRAY(SELECT j.jobid::bigint FROM cron.job AS j
             WHERE j.active AND j.database = pg_catalog.current_database()
             ORDER BY 1) AS jobs
