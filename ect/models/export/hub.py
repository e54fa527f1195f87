"""An exported folder to Hugging Face's hub, or to a server of its kind that HF_ENDPOINT names."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from ect.models.about import said
from ect.runtime.text import shown, shown_path


def push(name, folder, private=False):
    """Upload what a folder of `export` holds as one commit of the repository `name`, which is made
    where there is none; returns the commit's address.

    Raises `ValueError` for a name that is none, another folder, no token, no answer, or a refusal.
    """
    client = library()
    try:
        client.utils.validate_repo_id(name)
    except client.errors.HFValidationError:
        fits = False
    else:
        fits = "/" in name
    if not fits:
        found = f"found {shown(name, 80)!r}"
        allowed = "owner/name, each of letters, digits and between them - . _, no -- or .."
        raise ValueError(f"name: {found}; allowed: {allowed}")
    folder = exported(folder)
    require_token(client.get_token())
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    require_address(endpoint)
    hub = client.HfApi(endpoint=endpoint)
    try:
        hub.create_repo(name, exist_ok=True, private=private or None)
        commit = hub.upload_folder(
            repo_id=name, folder_path=str(folder), commit_message="A model of ect, by `ect push`"
        )
    except Exception as error:  # of the client, the network, the server or the disk
        raise ValueError(f"{name}: {_why(error, endpoint)}") from None
    return commit.commit_url


def require_token(token):
    """Raise `ValueError` unless a token is one that a header of HTTP can hold; it is not shown."""
    if token is None:
        found = "found no token of Hugging Face"
        raise ValueError(f"token: {found}; allowed: one in HF_TOKEN, or `hf auth login` before")
    if odd := [letter for letter in token if not "!" <= letter <= "~"]:
        found = f"found one with {odd[0]!a}"
        raise ValueError(f"token: {found}; allowed: ASCII letters, digits and signs, no spaces")


def require_address(endpoint):
    """Raise `ValueError` unless an endpoint is the address of a server."""
    try:
        parts = urlsplit(endpoint)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port, or of the brackets of IPv6
        fits = False
    if not fits or re.search(r"[^!-~]", endpoint):
        found = f"HF_ENDPOINT: found {shown(endpoint, 80)!r}"
        raise ValueError(f"{found}; allowed: an address such as https://huggingface.co")


def exported(folder):
    """The path of a folder that `export` wrote; raises `ValueError` for anything else."""
    folder = Path(folder)
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if "README.md" not in held or not {"model_index.json", "model.safetensors"} & held:
        allowed = "a folder that `python -m ect export MODEL --out FOLDER` wrote"
        raise ValueError(f"{shown_path(folder)}: found no exported model; allowed: {allowed}")
    return folder


def library():
    """The package huggingface_hub; raises `ValueError` where it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.errors  # no attributes of the package before they are imported
        import huggingface_hub.utils
    except ImportError:
        raise ValueError(
            "huggingface_hub: found no such package, which `push` needs; allowed: the extra 'hub'"
            " of pyproject.toml installed (pip install 'huggingface-hub>=0.30')"
        ) from None
    return huggingface_hub


def _why(error, endpoint):
    """What is wrong and what would help, in one line."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"{endpoint} does not know this token; allowed: a valid one in HF_TOKEN"
    if status == 403:
        return f"{endpoint} lets this token not write there; allowed: a token with that right"
    if status is not None:
        return f"{endpoint} answered {status} ({said(error)}); allowed: to try again later"
    return f"found no answer of {endpoint} ({said(error)}); allowed: a network, or HF_ENDPOINT"
