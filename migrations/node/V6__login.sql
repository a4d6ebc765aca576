-- A fence that also takes LOGIN away (fence.method = "no_login") gives it back by this record.

ALTER TABLE pgferry.fenced_role
    ADD COLUMN had_login boolean NULL;
COMMENT ON COLUMN pgferry.fenced_role.had_login IS
    'whether the role might log in before the fence, which has taken that away; NULL when the fence leaves logins alone';
