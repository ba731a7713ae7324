-- What the filled tables get. Statements of one line group run one after the other; the groups,
-- parted by lines of dashes, run at the same time.

ALTER TABLE users ADD PRIMARY KEY (id);
ALTER TABLE projects ADD PRIMARY KEY (id), ADD UNIQUE (key);
ALTER TABLE labels ADD PRIMARY KEY (id), ADD UNIQUE (name);
ALTER TABLE issues ADD PRIMARY KEY (id);
ALTER TABLE issues ADD UNIQUE (number);
ALTER SEQUENCE issue_number OWNED BY issues.number;
SELECT setval('issue_number', (SELECT max(number) FROM issues));
ALTER TABLE issue_labels ADD PRIMARY KEY (issue_id, label_id);
ALTER TABLE comments ADD PRIMARY KEY (id);
-----
-- Each order of the list, alone and behind each filter that is common.
CREATE INDEX ON issues (modified DESC, id);
CREATE INDEX ON issues (created DESC, id);
CREATE INDEX ON issues (priority DESC, modified DESC, id);
CREATE INDEX ON issues (state, modified DESC, id);
CREATE INDEX ON issues (state, created DESC, id);
CREATE INDEX ON issues (state, priority DESC, modified DESC, id);
CREATE INDEX ON issues (project_id, modified DESC, id);
CREATE INDEX ON issues (project_id, state, modified DESC, id);
CREATE INDEX ON issues (assignee_id, modified DESC, id);
CREATE INDEX ON issues (assignee_id, state, modified DESC, id);
CREATE INDEX ON issues (creator_id);
-----
CREATE INDEX ON comments (issue_id, created, id);
CREATE INDEX ON comments (created DESC, id);
CREATE INDEX ON comments (author_id);
CREATE INDEX ON issue_labels (label_id, issue_id);
