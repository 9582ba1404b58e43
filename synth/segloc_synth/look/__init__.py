"""In: a finished build. Out: what people look at, contact sheet, gallery and data card, and its COCO export."""
