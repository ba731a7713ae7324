/** Search, filters, order. */
import {useEffect, useState, type RefObject} from 'react';
import {useDirectory} from './directory.tsx';
import {NO_FILTERS, type Filters, type Sort} from './filters.ts';

/** Typing pauses this long before the query changes. */
const SEARCH_PAUSE_MS = 120;

type Props = {
  filters: Filters;
  onFilters: (change: Partial<Filters>) => void;
  onNew: () => void;
  searchRef: RefObject<HTMLInputElement | null>;
};

const STATES = [
  ['open', 'Open'],
  ['closed', 'Closed'],
  ['', 'All'],
] as const;

export function Toolbar({filters, onFilters, onNew, searchRef}: Props) {
  const {projects, users, labels} = useDirectory();
  const filtered = JSON.stringify(filters) !== JSON.stringify(NO_FILTERS);
  return (
    <header className="toolbar">
      <div className="toolbar-line">
        <Search value={filters.search} onChange={search => onFilters({search})} inputRef={searchRef} />
        <button className="primary" data-testid="new-issue" onClick={onNew} title="New issue (C)">
          New issue
        </button>
      </div>
      <div className="toolbar-line filters">
        <div className="segments" role="group" aria-label="State">
          {STATES.map(([state, name]) => (
            <button
              key={name}
              aria-pressed={filters.state === state}
              data-testid={`filter-state-${state || 'all'}`}
              onClick={() => onFilters({state})}
            >
              {name}
            </button>
          ))}
        </div>
        <Choice
          className="narrow-only"
          name="project"
          value={filters.project}
          empty="Project"
          options={projects}
          onChange={project => onFilters({project})}
        />
        <Choice
          name="label"
          value={filters.label}
          empty="Label"
          options={labels}
          onChange={label => onFilters({label})}
        />
        <Choice
          name="assignee"
          value={filters.assignee}
          empty="Assignee"
          options={[{id: 'none', name: 'Nobody'}, ...users]}
          onChange={assignee => onFilters({assignee})}
        />
        {filtered && (
          <button
            className="quiet"
            data-testid="filter-clear"
            onClick={() => onFilters({...NO_FILTERS, sort: filters.sort})}
          >
            Clear
          </button>
        )}
        <select
          className="sort"
          data-testid="sort"
          aria-label="Order"
          value={filters.sort}
          onChange={event => onFilters({sort: event.target.value as Sort})}
        >
          <option value="modified">Changed</option>
          <option value="created">Created</option>
          <option value="priority">Priority</option>
        </select>
      </div>
    </header>
  );
}

type ChoiceProps = {
  name: string;
  value: string;
  empty: string;
  options: readonly {id: string; name: string}[];
  onChange: (value: string) => void;
  className?: string;
};

function Choice({name, value, empty, options, onChange, className}: ChoiceProps) {
  return (
    <select
      className={className}
      data-testid={`filter-${name}`}
      data-on={value !== ''}
      aria-label={empty}
      value={value}
      onChange={event => onChange(event.target.value)}
    >
      <option value="">{empty}</option>
      {options.map(option => (
        <option key={option.id} value={option.id}>
          {option.name}
        </option>
      ))}
    </select>
  );
}

type SearchProps = {
  value: string;
  onChange: (value: string) => void;
  inputRef: RefObject<HTMLInputElement | null>;
};

function Search({value, onChange, inputRef}: SearchProps) {
  const [draft, setDraft] = useState(value);
  useEffect(() => setDraft(value), [value]);
  useEffect(() => {
    if (draft === value) return;
    const timer = setTimeout(() => onChange(draft), SEARCH_PAUSE_MS);
    return () => clearTimeout(timer);
  }, [draft]);
  return (
    <div className="search">
      <svg viewBox="0 0 16 16" aria-hidden>
        <circle cx="7" cy="7" r="4.5" />
        <path d="M10.5 10.5L14 14" />
      </svg>
      <input
        ref={inputRef}
        type="search"
        data-testid="search"
        placeholder="Search titles"
        aria-label="Search titles"
        value={draft}
        onChange={event => setDraft(event.target.value)}
      />
      <kbd>/</kbd>
    </div>
  );
}
