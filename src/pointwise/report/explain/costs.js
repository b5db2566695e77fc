// What a convolution costs, from its sizes alone. Biases are left out.

const FLOAT_BYTES = 4;

/**
 * Parameters, multiplications and bytes of every convolution that could do a job:
 * {kinds, channelsIn, channelsOut, taps, multiplier, groups, inputs, outputs}, where taps is the number
 * of weights in one kernel (k² or k³) and inputs and outputs count the pixels or points.
 *
 * Each weight is multiplied once for every output pixel or point: zeros of the padding and of empty cells
 * count, since the kernels multiply them too. Bytes count every input, weight and output once, as float32.
 * What lies between the halves of a separable convolution never leaves the cache, and is not in them.
 */
function costsOf(job) {
  return job.kinds.map(kind => ({kind, ...costOf(kind, job)}));
}

function costOf(kind, job) {
  const {channelsIn, channelsOut, taps, multiplier} = job;
  const wide = channelsIn * multiplier;
  const weights = {
    standard: () => [channelsOut * channelsIn * taps],
    grouped: () => [channelsOut * channelsIn / job.groups * taps],
    depthwise: () => [wide * taps],
    pointwise: () => [channelsOut * channelsIn],
    separable: () => [wide * taps, channelsOut * wide],
  }[kind]();
  const parameters = weights.reduce((sum, count) => sum + count, 0);
  const given = kind === "depthwise" ? wide : channelsOut;
  return {
    parameters,
    multiplications: parameters * job.outputs,
    bytes: FLOAT_BYTES * (channelsIn * job.inputs + parameters + given * job.outputs),
    channelsOut: given,
  };
}

/** The number of groups to compare with: what the reader chose, else the fewest that go. */
function groupsFor(wanted, channelsIn, channelsOut) {
  const fits = groups => channelsIn % groups === 0 && channelsOut % groups === 0;
  if (wanted > 1 && fits(wanted)) return wanted;
  for (let groups = 2; groups <= Math.min(channelsIn, channelsOut); groups++) if (fits(groups)) return groups;
  return 1;
}

/** The whole numbers that divide both. */
function commonDivisors(one, other) {
  const smaller = Math.min(one, other);
  return Array.from({length: smaller}, (_, i) => i + 1).filter(n => one % n === 0 && other % n === 0);
}

/** Jobs of the size that networks have, to compare beside the one on the screen. */
const LARGE_IMAGES = [
  {name: "224 × 224, 3 → 64 channels, 3 × 3", channelsIn: 3, channelsOut: 64, kernel: 3, inputs: 224 * 224, outputs: 224 * 224},
  {name: "56 × 56, 128 → 128 channels, 3 × 3", channelsIn: 128, channelsOut: 128, kernel: 3, inputs: 56 * 56, outputs: 56 * 56},
  {name: "14 × 14, 512 → 512 channels, 3 × 3", channelsIn: 512, channelsOut: 512, kernel: 3, inputs: 14 * 14, outputs: 14 * 14},
  {name: "12 × 12 → 8 × 8, 3 → 256 channels, 5 × 5", channelsIn: 3, channelsOut: 256, kernel: 5, inputs: 12 * 12, outputs: 8 * 8},
];
const LARGE_CLOUDS = [
  {name: "2,048 points, 9 → 9 channels, 3 × 3 × 3", channelsIn: 9, channelsOut: 9, kernel: 3, inputs: 2048, outputs: 2048},
  {name: "100,000 points, 64 → 64 channels, 3 × 3 × 3", channelsIn: 64, channelsOut: 64, kernel: 3, inputs: 100000, outputs: 100000},
];
