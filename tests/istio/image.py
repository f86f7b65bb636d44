#!/usr/bin/env python3
"""Makes the tar of an image (an OCI layout, as `ctr images import` takes it) out of folders: without a registry, a builder or root.

Every file in it belongs to root and is of no date, so the same folders give the same image. The name must be whole,
registry/name:tag, and the tag not `latest`, or the kubelet asks a registry for it.
"""
import argparse
import hashlib
import io
import json
import os
import platform
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("out", help="the tar")
    parser.add_argument("--layer", action="append", default=[], metavar="FOLDER[:PREFIX]", help="what lies in FOLDER, at PREFIX in the image")
    parser.add_argument("--entrypoint", type=json.loads, default=[], help="a JSON list")
    parser.add_argument("--cmd", type=json.loads, default=[], help="a JSON list")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--user", default="0:0", metavar="UID:GID")
    parser.add_argument("--workdir", default="/")
    wanted = parser.parse_args()

    blobs = {}

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    layers = [blob(layer(*part.partition(":")[::2]), "layer.v1.tar") for part in wanted.layer]
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {
            "Entrypoint": wanted.entrypoint,
            "Cmd": wanted.cmd,
            "Env": [f"PATH={PATH}", *wanted.env],
            "User": wanted.user,
            "WorkingDir": wanted.workdir,
        },
        # A layer that is not compressed has one digest for both purposes.
        "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(as_json(config), "config.v1+json"),
        "layers": layers,
    }
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            blob(as_json(manifest), "manifest.v1+json") | {"annotations": {"io.containerd.image.name": wanted.name}}
        ],
    }
    files = {"oci-layout": as_json({"imageLayoutVersion": "1.0.0"}), "index.json": as_json(index)}
    files |= {f"blobs/sha256/{digest}": data for digest, data in sorted(blobs.items())}
    with tarfile.open(wanted.out, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def layer(folder, prefix):
    """The bytes of a tar with what lies in the folder, at the prefix."""

    def nameless(info):
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        parts = prefix.strip("/").split("/")
        for depth in range(1, len(parts) + 1) if parts[0] else ():
            info = tarfile.TarInfo("/".join(parts[:depth]))
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for top, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(folders + files):
                path = os.path.join(top, name)
                inside = os.path.join(prefix.strip("/"), os.path.relpath(path, folder))
                tar.add(path, inside, recursive=False, filter=nameless)
    return data.getvalue()


def as_json(value):
    return json.dumps(value).encode()


main()
