// What a convolution costs, from its sizes alone. Biases are left out.

const FLOAT_BYTES = 4;

/**
 * Parameters and multiplications of every convolution that could do a job: {kinds, channelsIn, channelsOut,
 * taps, meetings, outputs, multiplier, groups}. taps is the number of weights in one kernel (k² or k³),
 * outputs that of output pixels or points, and meetings how often one of these meets a weight of one kernel:
 * for images taps · outputs, zeros of the padding included; for clouds the occupied cells of all points.
 */
function costsOf(job) {
  return job.kinds.map(kind => ({kind, ...costOf(kind, job)}));
}

function costOf(kind, job) {
  const {channelsIn, channelsOut, taps, meetings, outputs} = job;
  const wide = channelsIn * job.multiplier;
  // The halves: how many kernels of how many taps, and how often a tap is used.
  const halves = {
    standard: [[channelsOut * channelsIn, taps, meetings]],
    grouped: [[channelsOut * channelsIn / job.groups, taps, meetings]],
    depthwise: [[wide, taps, meetings]],
    pointwise: [[channelsOut * channelsIn, 1, outputs]],
    separable: [[wide, taps, meetings], [channelsOut * wide, 1, outputs]],
  }[kind];
  return {
    parameters: halves.reduce((sum, [kernels, size]) => sum + kernels * size, 0),
    multiplications: halves.reduce((sum, [kernels, , used]) => sum + kernels * used, 0),
    channelsOut: kind === "depthwise" ? wide : channelsOut,
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
  {name: "224 × 224, 3 → 64 channels, 3 × 3", channelsIn: 3, channelsOut: 64, taps: 9, outputs: 224 ** 2},
  {name: "56 × 56, 128 → 128 channels, 3 × 3", channelsIn: 128, channelsOut: 128, taps: 9, outputs: 56 ** 2},
  {name: "14 × 14, 512 → 512 channels, 3 × 3", channelsIn: 512, channelsOut: 512, taps: 9, outputs: 14 ** 2},
  {name: "12 × 12 → 8 × 8, 3 → 256 channels, 5 × 5", channelsIn: 3, channelsOut: 256, taps: 25, outputs: 8 ** 2},
];
const LARGE_CLOUDS = [  // at most: with every cell of every point occupied
  {name: "at most, 2,048 points, 9 → 9 channels", channelsIn: 9, channelsOut: 9, taps: 27, outputs: 2048},
  {name: "at most, 100,000 points, 64 → 64 channels", channelsIn: 64, channelsOut: 64, taps: 27, outputs: 100000},
];

/** One of the large jobs with all that costOf asks for. */
function largeJob(large, job) {
  return {
    ...job, ...large, multiplier: 1, meetings: large.taps * large.outputs,
    groups: groupsFor(job.groups, large.channelsIn, large.channelsOut),
  };
}
