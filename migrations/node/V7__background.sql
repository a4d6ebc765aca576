-- Rounds of the verification in the background: the one under way, so that a restarted daemon goes on
-- with it, and the last one that came to its end, which is as good as one that was asked for. Kept on
-- the destination, whichever side is active. What a round has compared is in pgferry.verified.

CREATE TABLE pgferry.background (
    run      uuid  NOT NULL PRIMARY KEY,
    active   text  NOT NULL CHECK (active IN ('source', 'destination')),
    verified jsonb NULL
);
COMMENT ON TABLE pgferry.background IS
    'pgferry: the verification in the background: the round under way and the last one that ended';
COMMENT ON COLUMN pgferry.background.run IS 'the round, as in pgferry.verified';
COMMENT ON COLUMN pgferry.background.active IS 'the side whose rows count as right';
COMMENT ON COLUMN pgferry.background.verified IS
    'what it came to, without keys and values; NULL while it is under way';
