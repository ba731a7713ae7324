-- The database of the end-to-end tests: an issue tracker with everything a query can meet.
-- Relations and a junction, compound keys and compound references with nulls, a self reference,
-- tables outside public, names that clients spell differently, a unique key besides the primary.

CREATE SCHEMA crm;
CREATE TYPE severity AS ENUM ('trivial', 'minor', 'major', 'blocker');

CREATE TABLE crm.organisation (
  org_id uuid PRIMARY KEY,
  display_name varchar(80) NOT NULL,
  country char(2),
  founded date
);

CREATE TABLE "user" (
  id text PRIMARY KEY,
  name text NOT NULL,
  email text NOT NULL UNIQUE,
  reputation int NOT NULL DEFAULT 0,
  active bool NOT NULL DEFAULT true,
  manager_id text,
  organisation_id uuid
);

CREATE TABLE project (
  id int PRIMARY KEY,
  name text NOT NULL,
  lead_id text,
  budget numeric(14, 2),
  archived bool
);

CREATE TABLE milestone (
  project_id int NOT NULL,
  year smallint NOT NULL,
  number smallint NOT NULL,
  title text NOT NULL,
  due timestamptz,
  PRIMARY KEY (project_id, year, number)
);

CREATE TABLE issue (
  id text PRIMARY KEY,
  project_id int NOT NULL,
  number int NOT NULL,
  title text NOT NULL,
  body text,
  open bool NOT NULL,
  severity severity,
  estimate float8,
  votes bigint NOT NULL DEFAULT 0,
  creator_id text NOT NULL,
  owner_id text,
  parent_id text,
  milestone_year smallint,
  milestone_number smallint,
  created timestamptz NOT NULL,
  modified timestamp,
  meta jsonb,
  tags text[],
  UNIQUE (project_id, number)
);
CREATE INDEX issue_project_idx ON issue (project_id, created DESC);
CREATE INDEX issue_owner_idx ON issue (owner_id);

CREATE TABLE comment (
  id text PRIMARY KEY,
  issue_id text NOT NULL,
  author_id text,
  body text NOT NULL,
  created timestamptz NOT NULL,
  pinned bool
);
CREATE INDEX comment_issue_idx ON comment (issue_id);

CREATE TABLE label (
  id int PRIMARY KEY,
  name text NOT NULL,
  colour text
);

CREATE TABLE issue_label (
  issue_id text NOT NULL,
  label_id int NOT NULL,
  PRIMARY KEY (issue_id, label_id)
);

CREATE TABLE reaction (
  comment_id text NOT NULL,
  user_id text NOT NULL,
  emoji text NOT NULL,
  PRIMARY KEY (comment_id, user_id, emoji)
);

-- One row that every transaction of a test touches last: a client that sees its new value
-- has seen the whole transaction.
CREATE TABLE marker (
  id int PRIMARY KEY,
  step int NOT NULL
);
INSERT INTO marker VALUES (1, 0);
