# Stand-in for debian:bookworm-slim where no registry can be reached: a system that debootstrap made, as that image is,
# with the certificates that this machine's pip uses.
FROM scratch
ADD root.tar /
COPY pip /etc/pip
RUN printf '%s\n' 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };' > /etc/apt/apt.conf.d/docker-clean
ENV PIP_CERT=/etc/pip/certificates.crt
CMD ["bash"]
