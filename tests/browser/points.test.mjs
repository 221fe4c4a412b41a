// The pages of a sweep and of a search.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { file, fits, folder, launch, open, root, shoot, steptime } from "./support.mjs";

let browser;
const out = folder();
const url = (name) => pathToFileURL(join(out, name)).href;
const cells = (page, number) => page.locator(`#points-table tbody tr td:nth-child(${number})`).allTextContents();
const heads = (page) => page.locator("#points-table thead th").allTextContents();

before(async () => {
  const base = readFileSync(join(root, "scenarios/llama3-8b-h100-zero3.toml"), "utf8");
  const axes = '\n[sweep]\n"workload.micro_batch_size" = [1, 2, 4, 8, 16]\n"parallelism.zero_stage" = [0, 2, 3]\n"workload.activation_checkpointing" = ["none", "full"]\n';
  steptime("sweep", file(join(out, "sweep.toml"), base + axes), "--report", join(out, "sweep.html"), "--json");
  const search = base.slice(0, base.indexOf("[parallelism]")) + '\n[search]\n';
  steptime("search", file(join(out, "search.toml"), search.replace("micro_batch_size = 1\ngradient_accumulation_steps = 4", "global_batch_size = 32")), "--report", join(out, "search.html"), "--quiet");
  browser = await launch();
});
after(() => browser.close());

test("a sweep's points are sorted by every column", async () => {
  const { page, close } = await open(browser, url("sweep.html"));
  assert.equal(await page.locator("#points-table tbody tr").count(), 30);
  const names = await heads(page);
  const column = names.indexOf("micro batch size") + 1;
  const head = page.locator("#points-table thead button", { hasText: "micro batch size" });
  await head.click();
  const up = (await cells(page, column)).map(Number);
  assert.deepEqual(up, [...up].sort((a, b) => a - b));
  assert.equal(await page.locator(`#points-table thead th:nth-child(${column})`).getAttribute("aria-sort"), "ascending");
  await head.focus();
  await page.keyboard.press("Enter");
  const down = (await cells(page, column)).map(Number);
  assert.deepEqual(down, [...down].sort((a, b) => b - a));
  await fits(page);
  await shoot(page, "sweep", { fullPage: true });
  await close();
});

test("filters leave what they name, in the table and among the dots", async () => {
  const { page, close } = await open(browser, url("sweep.html"));
  const dots = () => page.evaluate(() => Number(document.getElementById("scatter-drawing").dataset.dots));
  const all = await dots();
  assert.ok(all > 0 && all <= 30);
  await page.locator("#filters label", { hasText: "activation checkpointing" }).locator("select").selectOption({ label: "full" });
  await page.waitForTimeout(60);
  assert.equal(await page.textContent("#points-count"), "15 of 30 shown");
  const names = await heads(page);
  assert.deepEqual([...new Set(await cells(page, names.indexOf("activation checkpointing") + 1))], ["full"]);
  assert.ok(await dots() < all);
  await page.locator("#filters input").fill("nothing has this");
  assert.equal(await page.textContent("#points-count"), "0 of 30 shown");
  await close();
});

test("dots are told under the pointer and by keys", async () => {
  const { page, close } = await open(browser, url("sweep.html"));
  const canvas = page.locator("#scatter-drawing canvas");
  await canvas.focus();
  await page.keyboard.press("n");
  assert.match(await page.textContent("#said"), /step time: [\d.]+ .?s/);
  await page.selectOption("#axis-x", { label: "step time" });
  await close();
});

test("a search's page says which plan is best and why the others are not", async () => {
  const { page, close } = await open(browser, url("search.html"), { viewport: { width: 390, height: 844 }, colorScheme: "dark" });
  assert.match(await page.textContent("#summary"), /Best: [\d.]+ .?s a step/);
  assert.ok(await page.locator("#points-table tbody tr").count() >= 2);
  await fits(page);
  await shoot(page, "search-phone-dark", { fullPage: true });
  await close();
});
