/** Every query the page subscribes to. */
import {escapeLike, type QueryRowType, type Zero} from '@rocicorp/zero';
import type {Filters} from './filters.ts';
import type {Schema} from './schema.ts';

type Z = Zero<Schema>;

/** The list: the first `limit` issues in the chosen order, with what a row shows. */
export function issueList(z: Z, filters: Filters, limit: number) {
  let q = z.query.issue
    .related('project')
    .related('assignee')
    .related('labels');
  if (filters.project) q = q.where('projectID', filters.project);
  if (filters.state) q = q.where('state', filters.state);
  if (filters.assignee === 'none') q = q.where('assigneeID', 'IS', null);
  else if (filters.assignee) q = q.where('assigneeID', filters.assignee);
  if (filters.label) q = q.whereExists('labels', l => l.where('id', filters.label));
  const words = filters.search.trim();
  if (words) q = q.where('title', 'ILIKE', `%${escapeLike(words)}%`);
  if (filters.sort === 'created') q = q.orderBy('created', 'desc');
  else if (filters.sort === 'priority') q = q.orderBy('priority', 'desc').orderBy('modified', 'desc');
  else q = q.orderBy('modified', 'desc');
  return q.limit(limit);
}

/** One issue with everything the panel shows. */
export function issueDetail(z: Z, id: string) {
  return z.query.issue
    .where('id', id)
    .related('project')
    .related('creator')
    .related('assignee')
    .related('labels')
    .related('comments', c => c.related('author').orderBy('created', 'asc').limit(200))
    .one();
}

/** The newest comments anywhere, for the activity feed. */
export function activity(z: Z) {
  return z.query.comment
    .related('author')
    .related('issue', i => i.related('project'))
    .orderBy('created', 'desc')
    .limit(5);
}

export const users = (z: Z) => z.query.user.orderBy('name', 'asc');
export const projects = (z: Z) => z.query.project.orderBy('name', 'asc');
export const labels = (z: Z) => z.query.label.orderBy('name', 'asc');

export type IssueRow = QueryRowType<ReturnType<typeof issueList>>;
export type IssueDetail = NonNullable<QueryRowType<ReturnType<typeof issueDetail>>>;
