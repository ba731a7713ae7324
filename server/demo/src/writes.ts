/** Every write of the page: optimistic at once in this tab, then in PostgreSQL, then everywhere. */
import type {Zero} from '@rocicorp/zero';
import type {Schema, State} from './schema.ts';

type Z = Zero<Schema>;

export type IssueEdit = {
  title?: string;
  body?: string;
  state?: State;
  priority?: number;
  assigneeID?: string | null;
};

export function newID(): string {
  return crypto.randomUUID?.() ?? `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
}

export function editIssue(z: Z, id: string, edit: IssueEdit): void {
  void z.mutate.issue.update({id, ...edit, modified: Date.now()});
}

export function setLabel(z: Z, issueID: string, labelID: string, on: boolean): void {
  void z.mutateBatch(async m => {
    if (on) await m.issueLabel.insert({issueID, labelID});
    else await m.issueLabel.delete({issueID, labelID});
    await m.issue.update({id: issueID, modified: Date.now()});
  });
}

export function addComment(z: Z, issueID: string, authorID: string, body: string): void {
  const now = Date.now();
  void z.mutateBatch(async m => {
    await m.comment.insert({id: newID(), issueID, authorID, body, created: now});
    await m.issue.update({id: issueID, modified: now});
  });
}

export type NewIssue = {
  title: string;
  body: string;
  projectID: string;
  priority: number;
  creatorID: string;
  assigneeID: string | null;
};

/** Returns the id of the issue, which is there at once. */
export function createIssue(z: Z, issue: NewIssue): string {
  const id = newID();
  const now = Date.now();
  void z.mutate.issue.insert({id, ...issue, state: 'open', created: now, modified: now});
  return id;
}
