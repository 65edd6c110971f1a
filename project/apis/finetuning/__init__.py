# Copyright (c) mmdetr authors. All rights reserved.
"""Fine-tuning from a folder of images; see docs/finetune.md."""
