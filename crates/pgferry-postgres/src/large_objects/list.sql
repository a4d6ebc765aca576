-- The next large objects by oid, with what belongs to them: owner, comment, and the grants as parallel
-- arrays; a NULL grantee is PUBLIC. granted is false while the privileges are the default ones.
--
-- $1 oid: the last one that was listed
-- $2 bigint: how many
SELECT m.oid,
       pg_catalog.pg_get_userbyid(m.lomowner)::text AS owner,
       pg_catalog.obj_description(m.oid, 'pg_largeobject') AS comment,
       m.lomacl IS NOT NULL AS granted,
       a.grantees,
       a.privileges,
       a.grantable
FROM pg_catalog.pg_largeobject_metadata AS m
CROSS JOIN LATERAL (
    SELECT coalesce(pg_catalog.array_agg(r.rolname::text ORDER BY g.place), '{}') AS grantees,
           coalesce(pg_catalog.array_agg(g.privilege_type ORDER BY g.place), '{}') AS privileges,
           coalesce(pg_catalog.array_agg(g.is_grantable ORDER BY g.place), '{}') AS grantable
    FROM pg_catalog.aclexplode(m.lomacl)
         WITH ORDINALITY AS g (grantor, grantee, privilege_type, is_grantable, place)
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = g.grantee
) AS a
WHERE m.oid > $1
ORDER BY m.oid
LIMIT $2
