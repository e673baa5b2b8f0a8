"""Reading JSON bodies without letting their size or depth hurt."""

import json
from io import BytesIO
from typing import IO, Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class BoundedJSONParser(JSONParser):
    """DRF reads a JSON body straight from the socket, past DATA_UPLOAD_MAX_MEMORY_SIZE."""

    def parse(self, stream: IO[Any], *args: Any, **kwargs: Any) -> Any:
        limit: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise RequestDataTooBig
        try:
            parsed = super().parse(BytesIO(body), *args, **kwargs)
            if rb"\ud" in body.lower():
                json.dumps(parsed, ensure_ascii=False).encode()
        except RecursionError:
            raise ParseError("JSON parse error - it is nested too deeply.") from None
        except UnicodeEncodeError:  # neither the database nor an answer can hold it
            raise ParseError("JSON parse error - half a surrogate pair is no character.") from None
        return parsed
