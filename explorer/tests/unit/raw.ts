/** A run.json. */

export const RAW_RUN = {
  version: 1,
  run: "sample-0123456789ab",
  experiment: "sample",
  pictures: 10,
  path: "fair",
  cells: ["none", "q20"].map((name, number) => ({ name: `64/${name}`, resolution: "64", perturbation: name, file: `scores/${number}.parquet` })),
  detectors: [
    { name: "probe", title: "Probe", role: "probe", published: null, thresholds: {} },
    { name: "svm", title: "SVM", role: "detector", published: null, thresholds: { "64": { "0": 0.5 } } },
  ],
  sources: [
    { name: "coco", label: 0, of: "coco" },
    { name: "sd 14&ü", label: 1, of: "sd 14&ü" },
  ],
  mixes: [{ name: "combined", real: ["coco"], fakes: ["sd 14&ü"] }],
  formats: ["JPEG"],
  thumbnails: 0,
  words: { files: 1, pictures: 25_000 },
  views: { rows: 0, pictures: 0 },
};
