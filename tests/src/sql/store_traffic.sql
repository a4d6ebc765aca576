-- One batch of an application's work on the store: every kind of statement, every kind of table.
WITH customer AS (
    INSERT INTO store.customers (first_name, last_name, email, profile)
    SELECT 'new', 'customer ' || n, gen_random_uuid() || '@example.org', '{"new": true}'
      FROM generate_series(1, 20) AS n
    RETURNING id
), placed AS (
    INSERT INTO store.orders (customer_id, total) SELECT id, 9.99 FROM customer RETURNING id
)
INSERT INTO store.order_lines SELECT id, 1, 'article' FROM placed;
UPDATE store.orders SET status = 'paid' WHERE status = 'placed' AND id % 11 = 0;
UPDATE store.customers SET profile = profile || '{"seen": 1}' WHERE id % 17 = 0;
DELETE FROM store.orders WHERE id IN (SELECT id FROM store.orders ORDER BY id LIMIT 5);
INSERT INTO store.events (at, kind) SELECT now(), 'traffic' FROM generate_series(1, 20);
UPDATE store.events SET kind = 'changed' WHERE id % 101 = 0;
INSERT INTO store.visits SELECT '/traffic', now() FROM generate_series(1, 20);
SELECT nextval('store.invoice_number'), nextval('store.countdown');
