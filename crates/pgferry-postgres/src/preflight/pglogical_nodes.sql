-- What pglogical itself knows of an earlier run; an error says that it is not installed.
SELECT ARRAY(SELECT n.node_name::text
             FROM pglogical.node AS n
             -- the local node last: it cannot go before the others
             ORDER BY n.node_id IN (SELECT node_id FROM pglogical.local_node), 1) AS nodes,
       ARRAY(SELECT s.sub_name::text FROM pglogical.subscription AS s ORDER BY 1) AS subscriptions
