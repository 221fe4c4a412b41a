// The page of one run.

import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { contrast, fits, folder, launch, open, shoot, steptime } from "./support.mjs";

let browser;
const out = folder();
const url = (name) => pathToFileURL(join(out, name, "report.html")).href;
const ends = (page) => page.evaluate(() => { const { from, to } = document.getElementById("timeline-drawing").dataset; return [Number(from), Number(to)]; });
const frame = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)))));

before(async () => {
  steptime("run", "scenarios/llama3-8b-h100-zero3.toml", "--out", join(out, "small"));
  steptime("run", "scenarios/gpt3-175b-dgx-a100.toml", "--out", join(out, "large"));
  steptime("run", "scenarios/llama3-8b-h100-zero3.toml", "--set", "workload.gradient_accumulation_steps=256", "--out", join(out, "long"));
  steptime("run", "scenarios/llama3-8b-h100-zero0.toml", "--set", "workload.micro_batch_size=16", "--out", join(out, "full"));
  browser = await launch();
});
after(() => browser.close());

test("a page of 1,024 GPUs is small, and there within a second", async () => {
  const path = join(out, "large", "report.html");
  assert.ok(statSync(path).size <= 5 * 2 ** 20);
  const { page, close } = await open(browser, url("large"));
  const ready = Number(await page.evaluate(() => document.documentElement.dataset.ready));
  assert.ok(ready < 1000, `ready after ${ready} ms`);
  assert.match(await page.textContent("h1"), /Fits · [\d.]+ s a step/);
  // Ranks that do the same are there once, with their number.
  assert.match(await page.textContent("#timeline-table"), /stage 7, rank 896, one of 128 alike/);
  await fits(page);
  await shoot(page, "run-large");
  await close();
});

test("numbers are those of the report", async () => {
  const report = JSON.parse(readFileSync(join(out, "small", "report.json"), "utf8"));
  const { page, close } = await open(browser, url("small"));
  const text = await page.textContent("main");
  assert.ok(text.includes(`${report.step_time_s.toPrecision(4)} s`));
  assert.ok(text.includes(report.scenario_hash));
  assert.ok(text.includes(`steptime ${report.version}`));
  // The bar adds up to the step.
  const grown = await page.evaluate(() => [...document.querySelectorAll("#summary .stack > span")].reduce((sum, node) => sum + Number(node.style.flexGrow), 0));
  assert.ok(Math.abs(grown - 1) < 1e-6, `${grown}`);
  // So does the compute stream's row: busy is no more than the step.
  assert.equal(await page.locator("#stages tbody tr").count(), report.stages.length);
  await close();
});

test("the timeline zooms by wheel, buttons, ruler and keys, and moves by dragging", async () => {
  const { page, close } = await open(browser, url("small"));
  const canvas = page.locator("#timeline-drawing canvas");
  await canvas.scrollIntoViewIfNeeded();
  const box = await canvas.boundingBox();
  const [x, y] = [box.x + box.width / 2, box.y + 30];
  await frame(page);
  const whole = await ends(page);
  // Not clicked yet: the wheel belongs to the page.
  await page.mouse.move(x, y);
  await page.mouse.wheel(0, -50);
  await frame(page);
  assert.deepEqual(await ends(page), whole);
  await canvas.scrollIntoViewIfNeeded();
  const again = await canvas.boundingBox();
  const middle = [again.x + again.width / 2, again.y + 40];
  await page.mouse.click(...middle);
  await page.mouse.wheel(0, -200);
  await frame(page);
  const closer = await ends(page);
  assert.ok(closer[1] - closer[0] < 0.8 * (whole[1] - whole[0]), `${closer}`);
  await page.mouse.move(...middle);
  await page.mouse.down();
  await page.mouse.move(middle[0] + 100, middle[1], { steps: 4 });
  await page.mouse.up();
  await frame(page);
  const moved = await ends(page);
  assert.ok(moved[0] < closer[0]);
  assert.ok(Math.abs(moved[1] - moved[0] - (closer[1] - closer[0])) < 1e-9);
  await page.keyboard.press("0");
  await frame(page);
  assert.deepEqual(await ends(page), whole);
  // Along the ruler: the middle half of the drawing.
  await page.mouse.move(again.x + 300, again.y + 8);
  await page.mouse.down();
  await page.mouse.move(again.x + 600, again.y + 8, { steps: 4 });
  await page.mouse.up();
  await frame(page);
  const stretch = await ends(page);
  const expected = (300 / (again.width - 151)) * (whole[1] - whole[0]);
  assert.ok(Math.abs(stretch[1] - stretch[0] - expected) < 0.02 * expected, `${stretch}`);
  await page.getByRole("button", { name: "Show the whole step" }).click();
  await page.getByRole("button", { name: "Zoom in" }).click();
  await frame(page);
  const half = await ends(page);
  assert.ok(Math.abs(half[1] - half[0] - (whole[1] - whole[0]) / 2) < 1e-9);
  await close();
});

test("spans and memory are told under the pointer and by keys", async () => {
  const { page, close } = await open(browser, url("small"));
  const canvas = page.locator("#timeline-drawing canvas");
  await canvas.scrollIntoViewIfNeeded();
  await canvas.focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("n");
  await page.keyboard.press("n");
  const said = await page.textContent("#said");
  assert.match(said, /from [\d.]+ .?s to [\d.]+ .?s/);
  assert.match(said, /stage 0, rank 0, one of 8 alike, compute/);
  await frame(page);
  assert.equal(await page.isVisible("#tip"), true);
  await page.keyboard.press("Escape");
  assert.equal(await page.isVisible("#tip"), false);
  await page.keyboard.press("0");
  await frame(page);
  const box = await canvas.boundingBox();
  await page.mouse.move(box.x + 400, box.y + 22 + 22 + 18 + 9);
  assert.match(await page.textContent("#tip"), /: .*\n/);
  const memory = page.locator("#memory-drawing canvas");
  await memory.scrollIntoViewIfNeeded();
  const below = await memory.boundingBox();
  await page.mouse.move(below.x + 500, below.y + 200);
  assert.match(await page.textContent("#tip"), /parameters: [\d.]+ GiB/);
  await close();
});

test("drawing 100,000 spans takes no longer than two frames", async () => {
  const { page, close } = await open(browser, url("long"));
  const count = /([\d,]+) spans/.exec(await page.textContent("#timeline"))[1];
  assert.ok(Number(count.replaceAll(",", "")) >= 100_000, count);
  await page.locator("#timeline-drawing").scrollIntoViewIfNeeded();
  const times = await page.evaluate(async () => {
    const canvas = document.querySelector("#timeline-drawing canvas");
    const drawing = document.getElementById("timeline-drawing");
    const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    canvas.focus();
    const times = [];
    for (const key of ["+", "+", "+", "ArrowRight", "ArrowRight", "-", "-", "-", "-"]) {
      canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
      await frame();
      times.push(Number(drawing.dataset.drawMs));
    }
    return times.sort((a, b) => a - b);
  });
  const median = times[Math.floor(times.length / 2)];
  assert.ok(median < 33, `median ${median} ms of ${times}`);
  await close();
});

test("light, dark, and what the system says", async () => {
  const { page, close } = await open(browser, url("small"), { colorScheme: "dark" });
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
  const dark = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  for (const selector of ["body", ".muted", ".verdict .word", ".brand", "thead th", ".why"]) {
    assert.ok(await contrast(page, selector) >= 4.5, `dark ${selector}`);
  }
  await shoot(page, "run-dark");
  await page.click("#theme");
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "light");
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor), dark);
  for (const selector of ["body", ".muted", ".verdict .word", ".brand", "thead th", ".why"]) {
    assert.ok(await contrast(page, selector) >= 4.5, `light ${selector}`);
  }
  await close();
});

test("a phone shows all of it, and what does not fit says why", async () => {
  const { page, close } = await open(browser, url("full"), { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  assert.match(await page.textContent("h1"), /Out of memory/);
  assert.match(await page.textContent("#summary"), /asks for [\d.]+ .iB, [\d.]+ .iB short/);
  assert.match(await page.textContent("#help"), /workload\.|parallelism\./);
  await fits(page);
  await shoot(page, "run-phone", { fullPage: true });
  await close();
});

test("landmarks, headings and names are there for screen readers, and every control can be reached by Tab", async () => {
  const { page, close } = await open(browser, url("small"));
  const found = await page.evaluate(() => ({
    language: document.documentElement.lang,
    landmarks: ["header", "main"].map((name) => document.querySelectorAll(name).length),
    headings: document.querySelectorAll("h1").length,
    unnamed: [...document.querySelectorAll("section")].filter((node) => !document.getElementById(node.getAttribute("aria-labelledby"))).length,
    canvases: [...document.querySelectorAll("canvas")].filter((node) => !node.getAttribute("aria-label") || !node.getAttribute("role")).length,
    buttons: [...document.querySelectorAll("button")].filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim())).length,
    captions: [...document.querySelectorAll("table")].filter((node) => !node.caption).length,
  }));
  assert.deepEqual(found, { language: "en", landmarks: [1, 1], headings: 1, unnamed: 0, canvases: 0, buttons: 0, captions: 0 });
  const reached = new Set();
  for (let count = 0; count < 40; count += 1) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => { const node = document.activeElement; return node.id || node.getAttribute("aria-label") || node.tagName; }));
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    if (count === 3) assert.notEqual(outline, "none");
  }
  for (const name of ["theme", "Zoom in", "memory-rank"]) assert.ok(reached.has(name), `${name} of ${[...reached]}`);
  assert.ok([...reached].some((name) => name.startsWith("Timeline of the step")));
  await close();
});
