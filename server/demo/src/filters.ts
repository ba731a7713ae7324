/** What the list shows; kept in the address so that a view can be bookmarked and shared. */
export type Sort = 'modified' | 'created' | 'priority';

export type Filters = {
  readonly project: string;
  readonly state: '' | 'open' | 'closed';
  readonly label: string;
  /** A user id, or `none` for unassigned issues. */
  readonly assignee: string;
  readonly search: string;
  readonly sort: Sort;
};

export const NO_FILTERS: Filters = {
  project: '',
  state: 'open',
  label: '',
  assignee: '',
  search: '',
  sort: 'modified',
};

export type Location = {readonly filters: Filters; readonly issue: string | undefined};

export function readLocation(): Location {
  const params = new URLSearchParams(window.location.search);
  const match = /^\/issue\/([^/]+)$/.exec(window.location.pathname);
  const state = params.get('state') ?? 'open';
  const sort = params.get('sort');
  return {
    issue: match?.[1] ? decodeURIComponent(match[1]) : undefined,
    filters: {
      project: params.get('project') ?? '',
      state: state === 'all' ? '' : state === 'closed' ? 'closed' : 'open',
      label: params.get('label') ?? '',
      assignee: params.get('assignee') ?? '',
      search: params.get('q') ?? '',
      sort: sort === 'created' || sort === 'priority' ? sort : 'modified',
    },
  };
}

export function locationHref({filters, issue}: Location): string {
  const params = new URLSearchParams();
  if (filters.project) params.set('project', filters.project);
  if (filters.state !== 'open') params.set('state', filters.state || 'all');
  if (filters.label) params.set('label', filters.label);
  if (filters.assignee) params.set('assignee', filters.assignee);
  if (filters.search) params.set('q', filters.search);
  if (filters.sort !== 'modified') params.set('sort', filters.sort);
  const query = params.toString();
  return (issue ? `/issue/${encodeURIComponent(issue)}` : '/') + (query ? `?${query}` : '');
}
