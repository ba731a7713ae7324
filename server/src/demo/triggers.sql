-- Foreign keys, and what the database keeps by itself. Last, when the keys are there.

ALTER TABLE issues
    ADD FOREIGN KEY (project_id) REFERENCES projects ON DELETE CASCADE,
    ADD FOREIGN KEY (creator_id) REFERENCES users,
    ADD FOREIGN KEY (assignee_id) REFERENCES users ON DELETE SET NULL;
ALTER TABLE comments
    ADD FOREIGN KEY (issue_id) REFERENCES issues ON DELETE CASCADE,
    ADD FOREIGN KEY (author_id) REFERENCES users;
ALTER TABLE issue_labels
    ADD FOREIGN KEY (issue_id) REFERENCES issues ON DELETE CASCADE,
    ADD FOREIGN KEY (label_id) REFERENCES labels ON DELETE CASCADE;

-- An update that says nothing about the time of the change happened now.
CREATE FUNCTION touch_issue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.modified = old.modified THEN
        new.modified := now();
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER touch BEFORE UPDATE ON issues FOR EACH ROW EXECUTE FUNCTION touch_issue();

CREATE FUNCTION count_comments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF tg_op <> 'DELETE' THEN
        UPDATE issues SET comment_count = comment_count + 1 WHERE id = new.issue_id;
    END IF;
    IF tg_op <> 'INSERT' THEN
        UPDATE issues SET comment_count = comment_count - 1 WHERE id = old.issue_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER count AFTER INSERT OR DELETE OR UPDATE OF issue_id ON comments
    FOR EACH ROW EXECUTE FUNCTION count_comments();

CREATE VIEW recent AS
    SELECT number, state, title, modified FROM issues ORDER BY modified DESC LIMIT 20;

ANALYZE;
