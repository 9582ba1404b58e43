"""Fine-tune a detector from each pretrained backbone under one recipe and compare COCO AP and AR."""
