# Copyright (c) mmdetr authors. All rights reserved.
