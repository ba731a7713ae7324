// The client schema of `schema.sql`. Several names differ from the server's on purpose.

import {
  ANYONE_CAN_DO_ANYTHING,
  boolean,
  createBuilder,
  createSchema,
  definePermissions,
  enumeration,
  json,
  number,
  relationships,
  string,
  table,
} from '@rocicorp/zero';

const organisation = table('org')
  .from('crm.organisation')
  .columns({
    id: string().from('org_id'),
    name: string().from('display_name'),
    country: string().optional(),
    founded: number().optional(),
  })
  .primaryKey('id');

const user = table('member')
  .from('user')
  .columns({
    id: string(),
    name: string(),
    email: string(),
    reputation: number(),
    active: boolean(),
    managerID: string().optional().from('manager_id'),
    orgID: string().optional().from('organisation_id'),
  })
  .primaryKey('id');

const project = table('project')
  .columns({
    id: number(),
    name: string(),
    leadID: string().optional().from('lead_id'),
    budget: number().optional(),
    archived: boolean().optional(),
  })
  .primaryKey('id');

const milestone = table('milestone')
  .columns({
    projectID: number().from('project_id'),
    year: number(),
    number: number(),
    title: string(),
    due: number().optional(),
  })
  .primaryKey('projectID', 'year', 'number');

const issue = table('issue')
  .columns({
    id: string(),
    projectID: number().from('project_id'),
    number: number(),
    title: string(),
    body: string().optional(),
    open: boolean(),
    severity: enumeration().optional(),
    estimate: number().optional(),
    votes: number(),
    creatorID: string().from('creator_id'),
    ownerID: string().optional().from('owner_id'),
    parentID: string().optional().from('parent_id'),
    milestoneYear: number().optional().from('milestone_year'),
    milestoneNumber: number().optional().from('milestone_number'),
    created: number(),
    modified: number().optional(),
    meta: json().optional(),
    tags: json().optional(),
  })
  .primaryKey('id');

const comment = table('comment')
  .columns({
    id: string(),
    issueID: string().from('issue_id'),
    authorID: string().optional().from('author_id'),
    body: string(),
    created: number(),
    pinned: boolean().optional(),
  })
  .primaryKey('id');

const label = table('label')
  .columns({
    id: number(),
    name: string(),
    colour: string().optional(),
  })
  .primaryKey('id');

const issueLabel = table('issueLabel')
  .from('issue_label')
  .columns({
    issueID: string().from('issue_id'),
    labelID: number().from('label_id'),
  })
  .primaryKey('issueID', 'labelID');

const reaction = table('reaction')
  .columns({
    commentID: string().from('comment_id'),
    userID: string().from('user_id'),
    emoji: string(),
  })
  .primaryKey('commentID', 'userID', 'emoji');

const marker = table('marker').columns({id: number(), step: number()}).primaryKey('id');

const issueRelations = relationships(issue, ({one, many}) => ({
  project: one({sourceField: ['projectID'], destField: ['id'], destSchema: project}),
  creator: one({sourceField: ['creatorID'], destField: ['id'], destSchema: user}),
  owner: one({sourceField: ['ownerID'], destField: ['id'], destSchema: user}),
  parent: one({sourceField: ['parentID'], destField: ['id'], destSchema: issue}),
  children: many({sourceField: ['id'], destField: ['parentID'], destSchema: issue}),
  comments: many({sourceField: ['id'], destField: ['issueID'], destSchema: comment}),
  milestone: one({
    sourceField: ['projectID', 'milestoneYear', 'milestoneNumber'],
    destField: ['projectID', 'year', 'number'],
    destSchema: milestone,
  }),
  labels: many(
    {sourceField: ['id'], destField: ['issueID'], destSchema: issueLabel},
    {sourceField: ['labelID'], destField: ['id'], destSchema: label},
  ),
}));

const commentRelations = relationships(comment, ({one, many}) => ({
  issue: one({sourceField: ['issueID'], destField: ['id'], destSchema: issue}),
  author: one({sourceField: ['authorID'], destField: ['id'], destSchema: user}),
  reactions: many({sourceField: ['id'], destField: ['commentID'], destSchema: reaction}),
}));

const userRelations = relationships(user, ({one, many}) => ({
  manager: one({sourceField: ['managerID'], destField: ['id'], destSchema: user}),
  reports: many({sourceField: ['id'], destField: ['managerID'], destSchema: user}),
  org: one({sourceField: ['orgID'], destField: ['id'], destSchema: organisation}),
  owned: many({sourceField: ['id'], destField: ['ownerID'], destSchema: issue}),
  comments: many({sourceField: ['id'], destField: ['authorID'], destSchema: comment}),
}));

const organisationRelations = relationships(organisation, ({many}) => ({
  members: many({sourceField: ['id'], destField: ['orgID'], destSchema: user}),
}));

const projectRelations = relationships(project, ({one, many}) => ({
  lead: one({sourceField: ['leadID'], destField: ['id'], destSchema: user}),
  issues: many({sourceField: ['id'], destField: ['projectID'], destSchema: issue}),
  milestones: many({sourceField: ['id'], destField: ['projectID'], destSchema: milestone}),
}));

const milestoneRelations = relationships(milestone, ({many}) => ({
  issues: many({
    sourceField: ['projectID', 'year', 'number'],
    destField: ['projectID', 'milestoneYear', 'milestoneNumber'],
    destSchema: issue,
  }),
}));

const labelRelations = relationships(label, ({many}) => ({
  issues: many(
    {sourceField: ['id'], destField: ['labelID'], destSchema: issueLabel},
    {sourceField: ['issueID'], destField: ['id'], destSchema: issue},
  ),
}));

/** The client schema. Legacy queries and mutators are on: they are a part of the protocol. */
export const schema = createSchema({
  tables: [
    organisation,
    user,
    project,
    milestone,
    issue,
    comment,
    label,
    issueLabel,
    reaction,
    marker,
  ],
  relationships: [
    issueRelations,
    commentRelations,
    userRelations,
    organisationRelations,
    projectRelations,
    milestoneRelations,
    labelRelations,
  ],
  enableLegacyQueries: true,
  enableLegacyMutators: true,
});

/** The query builder of the schema. */
export const zql = createBuilder(schema);

/** Permissions under which everybody may read and write all tables. */
export function openPermissions(of = schema) {
  const all = Object.keys(of.tables).map(name => [name, ANYONE_CAN_DO_ANYTHING]);
  return definePermissions(of, () => Object.fromEntries(all));
}
