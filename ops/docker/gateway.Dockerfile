# The gateway: Debian's Python, our packages, and nothing that they do not use; no shell, no package manager.
# Built from the root of the repository: docker build -f ops/docker/gateway.Dockerfile .
ARG DEBIAN=debian:bookworm-20250520-slim

FROM ${DEBIAN} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils ca-certificates gcc libc6-dev python3-dev python3-venv
WORKDIR /src
COPY constraints.txt ./
COPY router router
COPY engines engines
COPY gateway gateway
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/build /opt/sluice \
    && /opt/build/bin/pip install -c constraints.txt hatchling \
    && /opt/build/bin/pip wheel --no-deps --no-build-isolation -w /wheels ./router ./engines ./gateway \
    && /opt/sluice/bin/pip install --no-compile -c constraints.txt /wheels/*.whl asyncpg huggingface-hub \
    && /opt/sluice/bin/pip uninstall -y hf-xet
# TGI's adapter takes huggingface-hub's client; hf-xet only speeds up downloads of models, which are not made here.
# The request path as machine code; what that needs goes again.
RUN /opt/sluice/bin/pip freeze >runtime.txt \
    && /opt/sluice/bin/pip install --no-compile -c constraints.txt mypy setuptools \
    && /opt/sluice/bin/sluice compile \
    && /opt/sluice/bin/pip freeze | grep -vxFf runtime.txt | cut -d= -f1 \
        | xargs /opt/sluice/bin/pip uninstall -y setuptools pip
# Debugging symbols, C sources of wheels and their tests are half of what is installed.
RUN find /opt/sluice -name '*.so' -exec strip --strip-unneeded {} + \
    && find /opt/sluice \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.pyi' \) -delete \
    && find /opt/sluice -depth -type d \( -name tests -o -name test -o -name __pycache__ -o -name 'pip*' \) \
        -exec rm -rf {} +

FROM ${DEBIAN} AS root
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ENV PACKAGES="base-files ca-certificates dash libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8 libgcc-s1 liblzma5 \
    libpython3.11-minimal libpython3.11-stdlib libsqlite3-0 libssl3 libstdc++6 libuuid1 media-types netbase \
    python3-minimal python3.11-minimal zlib1g"
WORKDIR /packages
# Debian's packages unpacked, without their scripts; what is installed stays readable for scanners of packages.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && for package in $PACKAGES; do apt-get download "$package"; done \
    && mkdir -p /rootfs/usr/bin /rootfs/usr/sbin /rootfs/usr/lib /rootfs/usr/lib64 /rootfs/var/lib/dpkg/status.d \
    && for folder in bin sbin lib lib64; do ln -s "usr/$folder" "/rootfs/$folder"; done \
    && for file in *.deb; do \
        dpkg-deb --fsys-tarfile "$file" | tar -x --keep-directory-symlink -C /rootfs; \
        dpkg-deb --field "$file" >"/rootfs/var/lib/dpkg/status.d/$(dpkg-deb --field "$file" Package)"; \
    done \
    && cp /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ \
    && ln -sf dash /rootfs/usr/bin/sh \
    && rm -rf /rootfs/usr/share/doc /rootfs/usr/share/man /rootfs/usr/share/locale /rootfs/usr/share/lintian \
        /rootfs/usr/share/ca-certificates /rootfs/usr/share/bug \
    && echo 'root:x:0:0:root:/:/usr/sbin/nologin' >/rootfs/etc/passwd \
    && echo 'sluice:x:10001:10001:Sluice:/var/lib/sluice:/usr/sbin/nologin' >>/rootfs/etc/passwd \
    && printf 'root:x:0:\nsluice:x:10001:\n' >/rootfs/etc/group \
    && install -d -m 1777 /rootfs/tmp \
    && install -d -m 700 -o 10001 -g 10001 /rootfs/var/lib/sluice /rootfs/var/lib/sluice-key
COPY --from=build /opt/sluice /rootfs/opt/sluice
# Everything that Python links to is there, and it starts; a missing library ends the build here. Byte code of what is
# loaded is kept on the way: the container cannot write it.
COPY ops/docker/byte_code.py /rootfs/tmp/
RUN PYTHONDONTWRITEBYTECODE='' chroot /rootfs /opt/sluice/bin/python /tmp/byte_code.py \
    && PYTHONDONTWRITEBYTECODE='' chroot /rootfs /opt/sluice/bin/sluice config check \
    && rm /rootfs/tmp/byte_code.py

FROM scratch
COPY --from=root /rootfs /
ENV PATH=/opt/sluice/bin:/usr/bin PYTHONUNBUFFERED=1 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
LABEL org.opencontainers.image.title="Sluice gateway" org.opencontainers.image.licenses="MIT"
WORKDIR /var/lib/sluice
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=2)"]
ENTRYPOINT ["sluice"]
CMD ["serve"]
