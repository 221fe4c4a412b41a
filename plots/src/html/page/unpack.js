// The timeline as the program packs it: columns of 32-bit differences, deflated, in base64.

/** What kinds of spans are drawn alike. */
const kindClass = {
  forward: "forward", backward: "backward", weights: "backward", recompute: "recompute", optimizer: "optimizer",
  send_receive: "transfer", to_host: "offload", to_device: "offload", drive_read: "offload", drive_write: "offload",
  host_optimizer: "offload", waiting: "waiting", host: "host", host_sync: "host", data_loading: "data", copy: "data",
  convert: "other", other: "other",
};
const classNames = ["forward", "backward", "recompute", "optimizer", "communication", "transfer", "offload", "waiting", "host", "data", "other"];
const classWords = {
  forward: "forward", backward: "backward", recompute: "recomputation", optimizer: "optimizer", communication: "collectives",
  transfer: "pipeline transfers", offload: "offload", waiting: "waiting", host: "host", data: "data and copies", other: "other",
};

async function inflate(text) {
  const raw = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new DataView(await new Response(stream).arrayBuffer());
}

async function unpack(packed) {
  const view = await inflate(packed.data);
  let at = 0;
  const column = (length) => {
    const values = new Uint32Array(length);
    let last = 0;
    for (let index = 0; index < length; index += 1, at += 4) {
      last = (last + view.getUint32(at, true)) >>> 0;
      values[index] = last;
    }
    return values;
  };
  const times = (length) => Float64Array.from(column(length), (ticks) => ticks * packed.tick_s);
  const levels = (length) => Float64Array.from(column(length), (units) => units * packed.unit_bytes);
  const ranks = packed.ranks.map((facts) => {
    const spans = { start: times(facts.spans), length: times(facts.spans), stream: column(facts.spans), kind: column(facts.spans), name: column(facts.spans), micro: column(facts.spans) };
    const memory = { at: times(facts.points), levels: facts.categories.map(() => levels(facts.points)) };
    const reserved = { at: times(facts.levels), bytes: levels(facts.levels) };
    return { ...facts, lanes: lanesOf(facts, spans, packed), memory, reserved };
  });
  return { ...packed, ranks };
}

/** The spans of each stream with anything on it, ready to be searched and summed. */
function lanesOf(facts, spans, packed) {
  const lanes = [];
  const total = spans.start.length;
  let first = 0;
  while (first < total) {
    const stream = spans.stream[first];
    let end = first;
    while (end < total && spans.stream[end] === stream) end += 1;
    const length = end - first;
    const lane = {
      rank: facts, name: facts.streams[stream] ?? `stream ${stream}`, length,
      start: spans.start.subarray(first, end), stop: new Float64Array(length), reach: new Float64Array(length),
      kind: spans.kind.subarray(first, end), label: spans.name.subarray(first, end), micro: spans.micro.subarray(first, end),
      type: new Uint8Array(length), sums: new Map(),
    };
    let reach = 0;
    for (let index = 0; index < length; index += 1) {
      lane.stop[index] = lane.start[index] + spans.length[first + index];
      reach = Math.max(reach, lane.stop[index]);
      lane.reach[index] = reach;
      lane.type[index] = classNames.indexOf(kindClass[packed.kinds[lane.kind[index]]] ?? "communication");
    }
    // Seconds of each class before a span: what a crowd of spans within one pixel is made of, without counting it.
    for (const type of new Set(lane.type)) {
      const sum = new Float64Array(length + 1);
      for (let index = 0; index < length; index += 1) {
        sum[index + 1] = sum[index] + (lane.type[index] === type ? lane.stop[index] - lane.start[index] : 0);
      }
      lane.sums.set(type, sum);
    }
    lanes.push(lane);
    first = end;
  }
  return lanes;
}

/** The first index whose value is above `limit`, in a sorted array. */
function firstAbove(values, limit, from = 0) {
  let low = from;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] > limit) high = middle; else low = middle + 1;
  }
  return low;
}
