-- The rows of a piece arrive in several transactions, each of which goes on where the one before it
-- has ended: a line says how many of its rows are here, and whether they are all.

ALTER TABLE pgferry.copied
    ADD COLUMN is_complete boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN pgferry.copied.row_count IS
    'rows that are here: while the piece is not complete, its first ones in the order of the source''s file';
COMMENT ON COLUMN pgferry.copied.is_complete IS 'whether every row of the piece is here';
