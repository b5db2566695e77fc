// Lessons: pages of a text, settings to look at, and a question. The first answer listed is the right one; they are
// shown in an order of their own. tests/report/test_explain_lessons.py holds the numbers against the library.

const HOUSE = {height: 8, width: 8, channelsIn: 1, channelsOut: 1, kernel: 3, stride: 1, padding: 0, dilation: 1};
const FOUR = {...HOUSE, channelsIn: 4, channelsOut: 4, padding: "same", groups: 2, multiplier: 1};
const TWELVE = {height: 12, width: 12, channelsIn: 3, channelsOut: 8, kernel: 5, stride: 1, padding: 0, dilation: 1, multiplier: 1};
const TWELVE_JOB = "12 × 12 → 8 × 8, 3 → 256 channels, 5 × 5";

const LESSONS = [
  {
    title: "Standard: from patch to output",
    pages: [
      {
        kind: "standard", settings: HOUSE, at: [0, 0, 14],
        text: "One channel of 8 × 8 pixels, one kernel of 3 × 3. The kernel lies on a patch, each weight meets the pixel below it, and the nine products are added up: that is one output. Then the kernel moves on by a pixel. It fits at 6 × 6 places.",
        question: "How large is the output of a 5 × 5 kernel here?",
        answers: ["4 × 4", "3 × 3", "5 × 5", "8 × 8"],
        why: "It begins at rows 0, 1, 2 and 3; from row 4 it would reach over the edge. 8 − 5 + 1 = 4.",
      },
      {
        kind: "standard", settings: {...HOUSE, padding: "same"}, at: [0, 0, 0],
        text: "With padding, zeros are put around the image, so that the kernel fits at all 8 × 8 places and the output is as large as the input.",
        question: "How many of the nine products of the corner’s output are with zeros of the padding?",
        answers: ["5", "3", "4", "6"],
        why: "The kernel’s first row and first column lie outside: 3 + 3, and the corner is in both.",
      },
      {
        kind: "standard", settings: FOUR, at: [0, 1, 27],
        text: "Four channels in, four out. Each output channel has a kernel for each input channel, and adds up what the four give: a patch of all channels at once.",
        question: "How many weights are that?",
        answers: ["144", "36", "9", "256"],
        why: "4 outputs × 4 inputs × 9 weights in each kernel.",
      },
      {
        kind: "standard", settings: {...HOUSE, padding: 1, stride: 2}, at: [0, 0, 5],
        text: "With stride 2 the kernel moves on by two pixels: every second place is left out, in both directions.",
        question: "How large is the output of 8 × 8 pixels with one zero around them?",
        answers: ["4 × 4", "3 × 3", "5 × 5", "8 × 8"],
        why: "Of 10 rows with the padding a kernel of 3 can begin at rows 0, 2, 4 and 6.",
      },
      {
        kind: "standard", settings: {...HOUSE, padding: "same", dilation: 2}, at: [0, 0, 27],
        text: "With dilation 2 the weights move apart: the kernel leaves out every second pixel, and sees further.",
        question: "Which square does the kernel reach over, and how many weights has it?",
        answers: ["5 × 5, with 9 weights", "5 × 5, with 25 weights", "6 × 6, with 9 weights", "3 × 3, with 9 weights"],
        why: "Two steps of 2 between the first and the last weight; what lies between is not looked at.",
      },
    ],
  },
  {
    title: "Who sees what: depthwise, pointwise, grouped",
    pages: [
      {
        kind: "depthwise", settings: FOUR, at: [0, 2, 27],
        text: "Depthwise: every channel has a kernel of its own and never meets the others.",
        question: "Channel 2 of the input changes. Which output channels change?",
        answers: ["Only channel 2", "All four", "Channels 2 and 3", "None"],
        why: "Each output channel is made from the input channel with its number.",
      },
      {
        kind: "pointwise", settings: FOUR, at: [0, 1, 27],
        text: "Pointwise, 1×1: the same small matrix mixes the channels of every pixel. It is a fully connected layer at each pixel by itself.",
        question: "One pixel of the input changes, in one channel. Which outputs change?",
        answers: ["That pixel, in all output channels", "That pixel, in one output channel", "The 3 × 3 pixels around it", "All pixels of that channel"],
        why: "No pixel sees its neighbours, and every output channel has a weight for every input channel.",
      },
      {
        kind: "grouped", settings: FOUR, at: [0, 3, 27],
        text: "Grouped: channels and outputs are cut into groups that do not meet. Here are two groups of two channels each.",
        question: "Which input channels does output channel 3 see?",
        answers: ["2 and 3", "3 alone", "0 to 3", "1 and 3"],
        why: "Outputs 2 and 3 are the second group, and so are channels 2 and 3. It needs half the weights of the standard one.",
      },
      {
        kind: "grouped", settings: {...FOUR, groups: 4}, at: [0, 3, 27],
        text: "Now there are as many groups as channels.",
        question: "What is a grouped convolution of 4 channels in 4 groups?",
        answers: ["A depthwise convolution", "A pointwise convolution", "A standard convolution"],
        why: "Each group is one channel: nothing is mixed.",
      },
      {
        kind: "separable", settings: FOUR, at: [1, 0, 27],
        text: "Separable: a depthwise convolution looks around, then a pointwise one mixes. The step shown is in the second half.",
        question: "What does one final output depend on?",
        answers: ["A 3 × 3 patch of all channels", "A 3 × 3 patch of one channel", "One pixel of all channels", "All pixels of all channels"],
        why: "It mixes all four middle channels at its pixel, and each of these has seen a patch of its own channel: as much as a standard one sees.",
      },
    ],
  },
  {
    title: "Separable: 12 × 12 × 3 → 8 × 8 × 3 → 8 × 8 × 256",
    pages: [
      {
        kind: "standard", settings: TWELVE, at: [0, 0, 27], job: TWELVE_JOB,
        text: "An image of 12 × 12 pixels with 3 channels is to become 8 × 8 with 256 channels, by kernels of 5 × 5 without padding. First by a standard convolution. The picture shows the first 8 of the 256 outputs; the others are made alike.",
        question: "How many products make one output value?",
        answers: ["75", "25", "15", "256"],
        why: "5 × 5 pixels in each of 3 channels.",
      },
      {
        kind: "standard", settings: TWELVE, at: [0, 7, 63], job: TWELVE_JOB,
        text: "Each of the 256 channels has 8 × 8 values of 75 products each. The table of costs below counts all 256.",
        question: "How many multiplications are that?",
        answers: ["1,228,800", "4,800", "19,200", "307,200"],
        why: "8 × 8 × 256 × 75. For one channel alone it would be 4,800; 19,200 is the number of weights.",
      },
      {
        kind: "depthwise", settings: {...TWELVE, channelsOut: 3}, at: [0, 2, 27], job: TWELVE_JOB,
        text: "Now in two halves. The first looks around: a 5 × 5 kernel for each of the 3 channels, from 12 × 12 × 3 to 8 × 8 × 3.",
        question: "How many multiplications does the first half take?",
        answers: ["4,800", "1,600", "14,400", "75"],
        why: "8 × 8 places × 3 channels × 25 weights.",
      },
      {
        kind: "separable", settings: TWELVE, at: [1, 0, 27], job: TWELVE_JOB,
        text: "The second half mixes: each of the 256 outputs has one weight for each of the 3 middle channels, from 8 × 8 × 3 to 8 × 8 × 256.",
        question: "How many multiplications does the second half take?",
        answers: ["49,152", "768", "16,384", "1,228,800"],
        why: "8 × 8 pixels × 256 outputs × 3 channels. 768 is the number of its weights.",
      },
      {
        kind: "separable", settings: TWELVE, at: [1, 7, 63], job: TWELVE_JOB,
        text: "Together 4,800 + 49,152 = 53,952 multiplications, where the standard convolution takes 1,228,800.",
        question: "How many times fewer are that?",
        answers: ["About 23 times", "About 3 times", "About 9 times", "About 256 times"],
        why: "The share is 1/256 + 1/25: one part for the outputs, one for the kernel. With many outputs the kernel’s size decides.",
      },
      {
        kind: "separable", settings: TWELVE, at: [1, 3, 27], job: TWELVE_JOB,
        text: "It costs less because it can do less: all 256 outputs share the same three 5 × 5 kernels, and each only chooses how much of which. A standard convolution has 768 kernels, one for each output and channel.",
        question: "How many weights do both halves have, instead of 19,200?",
        answers: ["843", "768", "75", "1,600"],
        why: "3 × 25 for the kernels and 256 × 3 for the mix.",
      },
    ],
  },
  {
    title: "Point clouds: cells and their means",
    pages: [
      {
        kind: "cells", settings: {points: 60, channelsIn: 2, channelsOut: 3, cellSize: 0.35, kernel: 3, dilation: 1},
        text: "Points have no rows and columns. So the kernel is a block of 27 cubes around each point, and every neighbour falls into one of them. Turn the picture with the mouse or the arrow keys.",
        question: "Three neighbours lie in one cell. What meets the cell’s weight?",
        answers: ["Their mean", "Their sum", "The nearest of them", "Each has a weight of its own"],
        why: "So a dense part of a scan does not outweigh a thin one.",
      },
      {
        kind: "cells", settings: {points: 60, channelsIn: 2, channelsOut: 3, cellSize: 0.35, kernel: 3, dilation: 1}, at: [0, 0, 0],
        text: "A point at the corner of the floor: below it and beside it there is nothing.",
        question: "What does an empty cell add to the output?",
        answers: ["Nothing", "Its weight", "The mean of the cells around it"],
        why: "There is no mean to multiply. The sum has fewer products, and so has the count.",
      },
      {
        kind: "cells", settings: {points: 60, channelsIn: 2, channelsOut: 3, cellSize: 0.25, kernel: 3, dilation: 2},
        text: "À trous, with holes: with dilation 2 the cubes keep their size and move apart. Points between the cubes are not looked at.",
        question: "How many weights does the convolution have, of 2 channels in and 3 out?",
        answers: ["162", "27", "54", "750"],
        why: "3 × 2 × 27, as without dilation. 750 would be a kernel of 5 × 5 × 5 cells.",
      },
      {
        kind: "cellsSeparable", settings: {points: 60, channelsIn: 2, channelsOut: 3, cellSize: 0.35, kernel: 3, dilation: 1},
        text: "Separable on a cloud: first each channel by itself meets one weight for each cube, then the channels of each point are mixed.",
        question: "How many weights does it have?",
        answers: ["60", "162", "54", "33"],
        why: "2 × 27 for the cubes and 3 × 2 for the mix.",
      },
    ],
  },
  {
    title: "The way back: which gradient meets which weight",
    pages: [
      {
        kind: "standard", settings: {...HOUSE, padding: "same"}, pass: "input", at: [0, 0, 27],
        text: "Training asks how the loss changes with each number. y.grad arrives from what follows; here it is made up. An input had a part in several outputs, and each of them sends its gradient back through the weight that joined them.",
        question: "In how many outputs did this pixel in the middle have a part?",
        answers: ["9", "1", "3", "64"],
        why: "The kernel lay over it at 3 × 3 places, each time with another weight: the last one first. So the kernel is turned by half a turn.",
      },
      {
        kind: "standard", settings: {...HOUSE, padding: "same"}, pass: "input", at: [0, 0, 0],
        text: "At the corner the kernel lay over the pixel less often.",
        question: "In how many outputs did the pixel in the corner have a part?",
        answers: ["4", "9", "6", "1"],
        why: "Only the outputs at rows 0 and 1 and columns 0 and 1 reach it.",
      },
      {
        kind: "standard", settings: {...HOUSE, padding: 1, stride: 2}, pass: "input", at: [0, 0, 18],
        text: "With stride 2 the kernel has left out places. Some pixels had a part in four outputs, some in two, some in one; so their gradients are of different strength, in a pattern like a checkerboard.",
        question: "In how many outputs did the pixel of row 2 and column 2 have a part?",
        answers: ["1", "2", "4", "9"],
        why: "Only the kernel that begins at row 1 and column 1 lay over it, with its middle weight.",
      },
      {
        kind: "standard", settings: {...HOUSE, padding: "same"}, pass: "weight", at: [0, 0, 0],
        text: "A weight was used at every place. Its gradient adds up all of them: the input that it met, times the gradient of the output that it went into.",
        question: "How many products make the gradient of one weight?",
        answers: ["64", "9", "36", "1"],
        why: "8 × 8 places; those where it met a zero of the padding are among them.",
      },
      {
        kind: "separable", settings: FOUR, pass: "input", at: [0, 0, 27],
        text: "Through two halves the gradient goes backwards: what is the output of one half is the input of the next, so each needs what the later one sends back.",
        question: "Which half is computed first on the way back?",
        answers: ["The pointwise one", "The depthwise one", "Both at once"],
        why: "y.grad times the mix gives z.grad, and z.grad times the kernels gives x.grad.",
      },
      {
        kind: "cells", settings: {points: 60, channelsIn: 2, channelsOut: 3, cellSize: 0.35, kernel: 3, dilation: 1}, pass: "input",
        text: "On a cloud a point gets gradients from all that had it in one of their cells. They stand around it in a kernel that is mirrored: who had it on the left stands on the right.",
        question: "A point shared a cell with two others. Which part of the gradient comes to it?",
        answers: ["A third", "All of it", "A half", "A ninth"],
        why: "Each of three points made a third of the mean.",
      },
    ],
  },
];

const lesson = {number: -1, page: 0};

const lessonNow = () => (LESSONS[lesson.number] ? lesson : null);

function listLessons() {
  $("lesson").append(element("option", {}, "none, look around"), ...LESSONS.map(({title}) => element("option", {}, title)));
  $("lesson-back").addEventListener("click", () => openLesson(lesson.number, lesson.page - 1));
  $("lesson-next").addEventListener("click", () => openLesson(lesson.number, lesson.page + 1));
  $("lesson-end").addEventListener("click", () => openLesson(-1, 0));
  $("answers").addEventListener("input", event => judge(event.target));
}

/** Goes to a page of a lesson: shows it, and what it speaks of. -1 ends the lesson. */
function openLesson(number, page) {
  showLesson(number, page);
  if (!lessonNow()) return show();
  const {kind, settings, pass, at, job} = LESSONS[number].pages[page];
  choose(kind, settings, pass);
  take();
  if (at && state.plan) {
    const [stage, channel, position] = at;
    go(stepOf(state.plan.stages[stage], channel, position));
  }
  if (job && !$("job").closest("[hidden]")) {
    $("job").value = job;
    showCosts();
  }
}

/** Shows a page of a lesson; no lesson where there is no such page. */
function showLesson(number, page) {
  const pages = LESSONS[number]?.pages ?? [];
  Object.assign(lesson, page in pages ? {number, page} : {number: -1, page: 0});
  $("lesson").selectedIndex = lesson.number + 1;
  $("lesson-panel").hidden = !lessonNow();
  $("about").hidden = Boolean(lessonNow());  // the lesson says it, and the picture needs the room
  if (!lessonNow()) return;
  const {text, question, answers} = pages[page];
  $("lesson-title").textContent = LESSONS[number].title;
  $("lesson-page").textContent = `${page + 1} of ${pages.length}`;
  $("lesson-text").textContent = text;
  $("question").textContent = question;
  $("answers").replaceChildren(...shuffled(answers, number + page).map(answer =>
    element("label", {}, element("input", {type: "radio", name: "answer", value: answer}), element("span", {}, answer))));
  $("verdict").textContent = "";
  $("lesson-back").disabled = page === 0;
  $("lesson-next").disabled = page === pages.length - 1;
}

/** The answers in another order, always the same one; numbers by their size. */
function shuffled(answers, turn) {
  const number = text => Number(text.replace(/,/g, ""));
  if (answers.every(answer => !Number.isNaN(number(answer)))) return [...answers].sort((one, other) => number(one) - number(other));
  const first = turn % answers.length;
  return [...answers.slice(first), ...answers.slice(0, first)];
}

function judge(input) {
  const {answers, why} = LESSONS[lesson.number].pages[lesson.page];
  const right = input.value === answers[0];
  $("verdict").textContent = right ? `Right. ${why}` : "Not this one. Look at the picture, and try again.";
  $("verdict").classList.toggle("right", right);
}
