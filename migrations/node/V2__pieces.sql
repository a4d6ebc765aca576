-- Large tables are copied, and committed, piece by piece: ranges of blocks of the source's file.

ALTER TABLE pgferry.copied
    ADD COLUMN first_block bigint NOT NULL DEFAULT 0,
    ADD COLUMN end_block   bigint NULL,
    DROP CONSTRAINT copied_pkey,
    ADD PRIMARY KEY (schema_name, table_name, first_block),
    ADD CHECK (end_block > first_block);
COMMENT ON TABLE pgferry.copied IS
    'pgferry: pieces of tables whose rows are here, written in the transaction that copied them';
COMMENT ON COLUMN pgferry.copied.first_block IS
    'first block of the source''s file in this piece; the key keeps a piece from being copied twice';
COMMENT ON COLUMN pgferry.copied.end_block IS
    'first block that is not in this piece any more; NULL when it goes to the end of the file';
