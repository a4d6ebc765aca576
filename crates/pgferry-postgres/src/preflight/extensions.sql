-- Extensions that are installed here, and those that could be.
-- needs_superuser is NULL when no version can be seen; trusted ones need CREATE on the database.
SELECT a.name::text,
       a.default_version,
       a.installed_version,
       (SELECT v.superuser AND NOT v.trusted
        FROM pg_catalog.pg_available_extension_versions AS v
        WHERE v.name = a.name AND v.version = a.default_version) AS needs_superuser
FROM pg_catalog.pg_available_extensions AS a
UNION ALL
-- Installed, while its files are gone: still an extension of the database.
SELECT e.extname::text, NULL, e.extversion, NULL
FROM pg_catalog.pg_extension AS e
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_available_extensions AS a WHERE a.name = e.extname)
ORDER BY 1
