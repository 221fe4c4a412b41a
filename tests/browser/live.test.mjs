// The page of `steptime serve`.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fits, launch, open, serve, shoot } from "./support.mjs";

let browser;
let server;

before(async () => {
  server = await serve("scenarios");
  browser = await launch();
});
after(async () => {
  await browser.close();
  server.stop();
});

const slider = (page, key) => page.locator(`input[data-key="${key}"]`);
const latency = (page) => page.evaluate(() => Number(document.querySelector(".live").dataset.latency));
const answers = (page) => page.evaluate(() => Number(document.querySelector(".live").dataset.answers));

/** Moves a slider by keys, as a hand would, and waits for the answer. */
async function move(page, key, by) {
  const before = await answers(page);
  await slider(page, key).focus();
  await page.keyboard.press(by > 0 ? "ArrowRight" : "ArrowLeft");
  await page.waitForFunction((before) => Number(document.querySelector(".live").dataset.answers) > before, before);
}

test("a slider changes the prediction within 100 ms", async () => {
  const { page, close } = await open(browser, server.url);
  const first = await page.textContent("h1");
  const times = [];
  for (let count = 0; count < 7; count += 1) {
    await move(page, "workload.micro_batch_size", count % 2 === 0 ? 1 : -1);
    times.push(await latency(page));
    if (count === 0) assert.notEqual(await page.textContent("h1"), first);
  }
  times.sort((a, b) => a - b);
  assert.ok(times[3] < 100, `median of ${times} ms`);
  await close();
});

test("the timeline follows when the controls rest", async () => {
  const { page, close } = await open(browser, server.url);
  await page.waitForSelector("#timeline-drawing canvas");
  await move(page, "workload.gradient_accumulation_steps", 1);
  await page.waitForFunction(() => document.querySelector(".live").dataset.detailed.includes("gradient_accumulation_steps,8"));
  assert.equal(await page.locator("#provenance").count(), 1);
  await fits(page);
  await shoot(page, "live", { fullPage: true });
  await close();
});

test("more nodes are more replicas, and a plan that cannot be says why", async () => {
  // The browser itself reports every answer that is no 200.
  const { page, close } = await open(browser, server.url, {}, /status of 422/);
  await move(page, "cluster.nodes", 1);
  assert.match(await page.textContent("#quick"), /GPUs16/);
  await page.selectOption('select[data-key="cluster.name"]', "rtx8000-pcie-4");
  await page.waitForFunction(() => document.getElementById("problem").textContent !== "");
  assert.match(await page.textContent("#problem"), /parallelism|precision|bf16/);
  await close();
});

test("a kept prediction stands beside the one of now", async () => {
  const { page, close } = await open(browser, server.url);
  await page.click("#keep");
  await move(page, "workload.micro_batch_size", 1);
  assert.match(await page.textContent("#compare"), /step time[\s\S]*throughput/);
  const row = await page.locator("#compare tbody tr", { hasText: "throughput" }).locator("td").allTextContents();
  assert.equal(row.length, 3);
  assert.notEqual(row[0], row[1]);
  await shoot(page, "live-compare");
  await page.click("#forget");
  assert.equal(await page.locator("#compare").count(), 0);
  await close();
});

test("a link carries the scenario", async () => {
  const { page, close } = await open(browser, server.url);
  await move(page, "workload.micro_batch_size", 1);
  await move(page, "workload.micro_batch_size", 1);
  const step = await page.textContent("h1");
  await page.click("#share");
  const link = page.url();
  assert.match(link, /#s=[\w-]+$/);
  const other = await open(browser, link);
  assert.equal(await other.page.textContent("h1"), step);
  assert.match(await other.page.inputValue("#toml"), /micro_batch_size = 3/);
  await other.close();
  await close();
});

test("scenarios of the folder open, on a phone too", async () => {
  const { page, close } = await open(browser, server.url, { viewport: { width: 390, height: 844 } });
  await page.selectOption("#scenario", "rat-256-h100.toml");
  await page.waitForFunction(() => document.title.toLowerCase().includes("rat"));
  await fits(page);
  await shoot(page, "live-phone", { fullPage: true });
  await close();
});
