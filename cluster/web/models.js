/** The models that are built in. A test holds them against the zoo. */
export const models = [
  "yolov3", "yolov3-spp", "yolov3-tiny", "yolov4", "yolov4-csp", "yolov4-p5", "yolov4-p6", "yolov4-p7",
  "yolov4-tiny", "yolov5l", "yolov5l-cbam", "yolov5l-v3.1", "yolov5l-v4.0", "yolov5l6", "yolov5m", "yolov5m-v3.1",
  "yolov5m-v4.0", "yolov5m6", "yolov5n", "yolov5n6", "yolov5s", "yolov5s-v3.1", "yolov5s-v4.0", "yolov5s6",
  "yolov5x", "yolov5x-v3.1", "yolov5x-v4.0", "yolov5x6",
];
