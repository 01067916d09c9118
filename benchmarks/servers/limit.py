"""The limit: the least that can answer the same rows with the same model. No validation, no capture, no metrics.

    python limit.py model.onnx <port> <numeric columns, by comma> <categorical columns, by comma>

One process: uvicorn on uvloop and httptools, Starlette, orjson, ONNX Runtime with one thread.
"""

from __future__ import annotations

import sys
from itertools import chain
from operator import itemgetter

import numpy as np
import onnxruntime
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

model, port, numeric, categorical = sys.argv[1:]
NUMBERS, TEXTS = numeric.split(","), categorical.split(",")
numbers_of, texts_of = itemgetter(*NUMBERS), itemgetter(*TEXTS)

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


async def predict(request: Request) -> Response:
    """{"rows": [{…}, …]} → {"predictions": […]}."""
    rows = orjson.loads(await request.body())["rows"]
    numbers = np.fromiter(chain.from_iterable(map(numbers_of, rows)), np.float32, len(rows) * len(NUMBERS))
    texts = np.fromiter(map(str, chain.from_iterable(map(texts_of, rows))), object, len(rows) * len(TEXTS))
    feeds = {"numeric": numbers.reshape(len(rows), -1), "categorical": texts.reshape(len(rows), -1)}
    scores = session.run(("scores",), feeds)[0]
    body = orjson.dumps({"predictions": scores[:, 0]}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
lean = {"lifespan": "off", "access_log": False, "log_level": "warning", "proxy_headers": False}
uvicorn.run(app, port=int(port), loop="uvloop", http="httptools", **lean)
