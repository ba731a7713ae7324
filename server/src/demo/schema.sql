-- The tables of the demo. Indexes, foreign keys and triggers come after the rows (finish.sql).

CREATE TABLE users (
    id text NOT NULL,
    name text NOT NULL,
    color text NOT NULL
);

CREATE TABLE projects (
    id text NOT NULL,
    key text NOT NULL,
    name text NOT NULL,
    color text NOT NULL
);

CREATE TABLE labels (
    id text NOT NULL,
    name text NOT NULL,
    color text NOT NULL
);

CREATE SEQUENCE issue_number AS integer;

CREATE TABLE issues (
    id text NOT NULL,
    number integer NOT NULL DEFAULT nextval('issue_number'),
    project_id text NOT NULL,
    title text NOT NULL,
    body text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
    priority smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 4),
    creator_id text NOT NULL,
    assignee_id text,
    comment_count integer NOT NULL DEFAULT 0,
    created timestamptz NOT NULL DEFAULT now(),
    modified timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE comments (
    id text NOT NULL,
    issue_id text NOT NULL,
    author_id text NOT NULL,
    body text NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE issue_labels (
    issue_id text NOT NULL,
    label_id text NOT NULL
);
