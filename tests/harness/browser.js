// Chromium, driven from outside, with a profile that is thrown away.

import {execFileSync} from 'node:child_process';
import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {chromium} from 'playwright-core';
import {artifact} from './paths.js';

/** Keeps Chromium from talking to anybody but the page, and lets root run it. */
const FLAGS = [
  '--headless=new',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-dev-shm-usage',
];

/** A browser with a profile of its own. Its tabs share storage, as a person's do. */
export async function startBrowser() {
  const profile = mkdtempSync(join(tmpdir(), 'kelvin-browser-'));
  const executablePath =
    process.env.CHROMIUM ??
    execFileSync('sh', ['-c', 'command -v chromium'], {encoding: 'utf8'}).trim();
  const context = await chromium.launchPersistentContext(profile, {
    executablePath,
    args: FLAGS,
    headless: true,
    viewport: {width: 1440, height: 900},
  });
  const problems = [];
  const open = async url => {
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    page.on('pageerror', error => problems.push(String(error)));
    await page.goto(url);
    return page;
  };
  return {
    open,
    /** Errors that no code of the page caught. */
    problems,
    /** Keeps a picture of a page among the artifacts. */
    picture: (page, name) => page.screenshot({path: artifact(`${name}.png`)}),
    async stop() {
      await context.close();
      rmSync(profile, {recursive: true, force: true});
    },
  };
}
