#!/bin/sh
# Install the application's requirements into /opt/venv while its image is built.
#
# Usage: install.sh REQUIREMENTS, with VARIANT (cpu or gpu) and TORCH_INDEX in the environment.
# Wheels in /context/build/map/wheels are preferred to those of an index.
set -eu
requirements=$1
wheels=/context/build/map/wheels
[ -s /run/ca.crt ] && export PIP_CERT=/run/ca.crt
[ -d "$wheels" ] && export PIP_FIND_LINKS="$wheels"

case $VARIANT in
cpu)
    # "===" names PyPI's build, which brings CUDA along.
    sed -i -E 's/^(torch|torchvision)===?([^ +]+)$/\1==\2+cpu/' "$requirements"
    torch=$(grep '^torch==' "$requirements")
    pip install --no-deps --no-index "$torch" \
        || pip install --no-deps --index-url "$TORCH_INDEX" "$torch"
    if torchvision=$(grep '^torchvision==' "$requirements") \
        && ! pip install --no-deps --no-index "$torchvision" \
        && ! pip install --no-deps --retries 1 --index-url "$TORCH_INDEX" "$torchvision"; then
        echo "No CPU build of torchvision: the models that need it are left out of the image." >&2
        sed -i '/^torchvision==/d' "$requirements"
    fi
    # Holoscan needs the CUDA runtime library, which torch's CPU build does not bring.
    pip install 'nvidia-cuda-runtime>=13,<14'
    ;;
gpu) ;;
*)
    echo "VARIANT is '$VARIANT'; give cpu or gpu" >&2
    exit 2
    ;;
esac

pip install -r "$requirements"
find /opt/venv -name 'libcudart.so.*' -printf '%h\n' | sort -u >/etc/ld.so.conf.d/cudart.conf
ldconfig  # Holoscan links against the CUDA runtime even where there is no GPU
# Holoscan finishes its installation at the first import, which needs write access.
python -c 'import torch, monai.deploy.core'

packages=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# Nothing is compiled and no library tested in the image.
rm -rf "$packages/torch/include" "$packages/torch/test" "$packages/torch/share/cmake" \
    "$packages/holoscan/include" "$packages/holoscan/examples" /root/.cache
find "$packages" -type d -name tests -prune -exec rm -rf {} +
