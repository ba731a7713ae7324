/** The tables of the demo database as the client sees them (its SQL: `server/src/demo/schema.sql`). */
import {
  createSchema,
  enumeration,
  number,
  relationships,
  string,
  table,
  type Row,
} from '@rocicorp/zero';

export type State = 'open' | 'closed';

const user = table('user')
  .from('users')
  .columns({id: string(), name: string(), color: string()})
  .primaryKey('id');

const project = table('project')
  .from('projects')
  .columns({id: string(), key: string(), name: string(), color: string()})
  .primaryKey('id');

const issue = table('issue')
  .from('issues')
  .columns({
    id: string(),
    // Given by the database on insert, so a new issue has none until it came back.
    number: number().optional(),
    projectID: string().from('project_id'),
    title: string(),
    body: string(),
    state: enumeration<State>(),
    priority: number(),
    creatorID: string().from('creator_id'),
    assigneeID: string().from('assignee_id').optional(),
    // Kept by a trigger in the database.
    commentCount: number().from('comment_count').optional(),
    created: number(),
    modified: number(),
  })
  .primaryKey('id');

const comment = table('comment')
  .from('comments')
  .columns({
    id: string(),
    issueID: string().from('issue_id'),
    authorID: string().from('author_id'),
    body: string(),
    created: number(),
  })
  .primaryKey('id');

const label = table('label')
  .from('labels')
  .columns({id: string(), name: string(), color: string()})
  .primaryKey('id');

const issueLabel = table('issueLabel')
  .from('issue_labels')
  .columns({issueID: string().from('issue_id'), labelID: string().from('label_id')})
  .primaryKey('issueID', 'labelID');

const issueRelationships = relationships(issue, ({one, many}) => ({
  project: one({sourceField: ['projectID'], destField: ['id'], destSchema: project}),
  creator: one({sourceField: ['creatorID'], destField: ['id'], destSchema: user}),
  assignee: one({sourceField: ['assigneeID'], destField: ['id'], destSchema: user}),
  comments: many({sourceField: ['id'], destField: ['issueID'], destSchema: comment}),
  labels: many(
    {sourceField: ['id'], destField: ['issueID'], destSchema: issueLabel},
    {sourceField: ['labelID'], destField: ['id'], destSchema: label},
  ),
}));

const commentRelationships = relationships(comment, ({one}) => ({
  author: one({sourceField: ['authorID'], destField: ['id'], destSchema: user}),
  issue: one({sourceField: ['issueID'], destField: ['id'], destSchema: issue}),
}));

export const schema = createSchema({
  tables: [user, project, issue, comment, label, issueLabel],
  relationships: [issueRelationships, commentRelationships],
  enableLegacyQueries: true,
  enableLegacyMutators: true,
});

export type Schema = typeof schema;
export type User = Row<Schema['tables']['user']>;
export type Project = Row<Schema['tables']['project']>;
export type Label = Row<Schema['tables']['label']>;

declare module '@rocicorp/zero' {
  interface DefaultTypes {
    schema: Schema;
  }
}
