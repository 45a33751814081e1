"""The three models behind the backend `chronos2`; they import torch, so only `load` imports them."""
