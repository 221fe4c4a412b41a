// Starting the browser and the program, and what every page must keep to.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";

export const root = resolve(import.meta.dirname, "../..");
export const program = process.env.STEPTIME ?? join(root, "target/release/steptime");
const shots = process.env.SCREENSHOTS;

const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: flags });
}

/** A folder that is gone when the tests have ended. */
export function folder() {
  const path = mkdtempSync(join(tmpdir(), "steptime-"));
  process.on("exit", () => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Runs the program; exit code 0 or 1. */
export function steptime(...options) {
  const done = spawnSync(program, options, { cwd: root, encoding: "utf8" });
  assert.ok(done.status === 0 || done.status === 1, `${options.join(" ")}: ${done.stderr}`);
  return done.stdout;
}

export function file(path, text) {
  writeFileSync(path, text);
  return path;
}

/** A page on which nothing may go wrong: errors and messages of the console fail the test, and so does any request elsewhere. */
export async function open(browser, url, options = {}, expected = null) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => { if (!expected?.test(message.text())) wrong.push(`console: ${message.text()}`); });
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  const home = new URL(url);
  page.on("request", (request) => {
    const to = new URL(request.url());
    if (to.protocol !== "data:" && (to.protocol !== home.protocol || to.host !== home.host)) wrong.push(`request: ${request.url()}`);
  });
  await page.goto(url);
  await page.waitForFunction(() => document.documentElement.dataset.ready !== undefined, null, { timeout: 15_000 });
  return { page, wrong, close: async () => { assert.deepEqual(wrong, []); await context.close(); } };
}

/** Keeps a picture of the page where they are asked for. */
export async function shoot(page, name, options = {}) {
  if (!shots) return;
  mkdirSync(shots, { recursive: true });
  await page.screenshot({ path: join(shots, `${name}.png`), ...options });
}

/** Nothing sticks out of the page to the right. */
export async function fits(page) {
  const [needed, has] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(needed <= has, `the page is ${needed} px wide in a window of ${has}`);
}

/** A server of the program; `stop` ends it. */
export async function serve(...options) {
  const child = spawn(program, ["serve", "--port", "0", ...options], { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  const url = await new Promise((done, failed) => {
    let text = "";
    child.stdout.on("data", (piece) => {
      text += piece;
      const found = /http:\/\/\S+/.exec(text);
      if (found) done(found[0]);
    });
    child.on("exit", () => failed(new Error(`the server ended: ${text}`)));
  });
  child.removeAllListeners("exit");
  return { url, stop: () => child.kill() };
}

/** Contrast of an element's text against what lies behind it (WCAG 2, relative luminance). */
export function contrast(page, selector) {
  return page.evaluate((selector) => {
    const node = document.querySelector(selector);
    const parse = (text) => text.match(/[\d.]+/g).map(Number);
    let behind = node;
    let ground = [255, 255, 255, 0];
    while (behind) {
      const found = parse(getComputedStyle(behind).backgroundColor);
      if (found.length === 3 || found[3] > 0) { ground = found; break; }
      behind = behind.parentElement;
    }
    const light = ([r, g, b]) => {
      const linear = [r, g, b].map((part) => { const share = part / 255; return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4; });
      return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }, selector);
}
