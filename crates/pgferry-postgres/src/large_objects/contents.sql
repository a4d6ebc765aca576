-- A hash of each object's content, a piece at a time, and its metadata as it can be compared between
-- servers. One piece more than the size holds is read, so that an object that is too long is seen.
--
-- $1 oid[], $2 bigint[]: objects and their sizes
-- $3 integer: bytes of a piece
SELECT o.oid,
       pg_catalog.md5(pg_catalog.string_agg(
           pg_catalog.md5(pg_catalog.lo_get(o.oid, n * $3::int, $3::int)), '' ORDER BY n)) AS content,
       (SELECT pg_catalog.concat_ws(
                   ' ', pg_catalog.pg_get_userbyid(m.lomowner), m.lomacl IS NULL,
                   (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(
                               ':', coalesce(r.rolname, 'PUBLIC'), g.privilege_type, g.is_grantable),
                               ',' ORDER BY r.rolname, g.privilege_type)
                    FROM (SELECT grantee, privilege_type,
                                 pg_catalog.bool_or(is_grantable) AS is_grantable
                          FROM pg_catalog.aclexplode(m.lomacl)
                          GROUP BY grantee, privilege_type) AS g
                    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = g.grantee),
                   pg_catalog.obj_description(m.oid, 'pg_largeobject'))
        FROM pg_catalog.pg_largeobject_metadata AS m WHERE m.oid = o.oid) AS metadata
FROM unnest($1::oid[], $2::bigint[]) AS o (oid, size)
CROSS JOIN LATERAL pg_catalog.generate_series(0, o.size / $3::int) AS n
GROUP BY o.oid
