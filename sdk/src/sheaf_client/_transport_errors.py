"""What httpx raises, as the errors of this library."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import httpx

from sheaf_client._middleware import Line
from sheaf_client.errors import ArgumentError, BadResponseError, CallTimeoutError, ConnectionFailedError


@contextmanager
def translated(server: str, line: Line | None = None) -> Generator[None, None, None]:
    """Turn httpx's errors into this library's; `line` is that of a try whose answer has not begun yet."""
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise ConnectionFailedError(
            f"{server} did not accept the connection in time.", unsent=True
        ) from error
    except httpx.TimeoutException as error:
        raise CallTimeoutError("The time for this call is over.") from error
    except httpx.ConnectError as error:
        raise ConnectionFailedError(_not_connected(server, error), unsent=True) from error
    except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError):
        # What they say may hold the value of a header, so they are no cause either.
        raise ArgumentError(
            "Middleware or the httpx client gave a path or a header that HTTP cannot carry."
        ) from None
    except httpx.TransportError as error:
        if isinstance(error.__context__, httpx.InvalidURL):
            raise BadResponseError(
                f"A redirect is no answer to a call, and it leads to nowhere: {error}"
            ) from error
        if _is_no_http(error):
            raise BadResponseError(f"{server} does not answer by HTTP: {error}.") from error
        unanswered = line is not None and line.response is None and _closed(error)
        raise ConnectionFailedError(f"The connection broke: {error}", unanswered=unanswered) from error
    except httpx.RequestError as error:  # an encoding that is broken, redirects without end
        raise BadResponseError(f"The answer cannot be read: {error}") from error
    except RuntimeError as error:
        if str(error) != "Event loop is closed":
            raise
        unanswered = line is not None and line.response is None
        text = "The connection is of an event loop that is closed; give each loop an httpx client of its own."
        raise ConnectionFailedError(text, unanswered=unanswered) from error


def _not_connected(server: str, error: httpx.ConnectError) -> str:
    text = f"No server can be reached at {server}: {error}."
    if "SSL" in str(error):
        return text
    return f"{text} `sheaf serve` starts one; `base_url` or SHEAF_BASE_URL says where it is."


def _closed(error: httpx.TransportError) -> bool:
    """Whether the connection was closed or reset, rather than used for something that is not HTTP."""
    # httpx raises the same class where an answer breaks the protocol; only the text, the same in its code for
    # HTTP/1.1 and HTTP/2, tells the end of a connection.
    return isinstance(error, (httpx.ReadError, httpx.WriteError)) or (
        isinstance(error, httpx.RemoteProtocolError) and str(error).startswith("Server disconnected")
    )


def _is_no_http(error: httpx.TransportError) -> bool:
    """Whether something came that breaks HTTP/1.1, rather than nothing more."""
    # httpx's error is of httpcore's, which holds the parser's.
    held = getattr(error.__cause__, "args", ())
    parsed = any(type(one).__module__.startswith("h11.") for one in held)
    return parsed and not str(error).startswith("peer closed")
