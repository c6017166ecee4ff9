#!/usr/bin/env bash
# Make a site's own authority and the certificate of its cluster: make-tls.sh FOLDER [DAYS]
# Scheduler, workers and nights all show the same one. Dask asks who signed it, not for which name it stands.
set -euo pipefail

folder=$1
days=${2:-825}
if [ -e "$folder/ca.key" ]; then
    echo "$folder/ca.key is there already: move it away to begin anew, and copy the new files to all machines" >&2
    exit 2
fi
mkdir -p "$folder"
umask 077
openssl req -x509 -newkey rsa:3072 -noenc -days "$days" -subj "/CN=cmrtrials authority" \
    -keyout "$folder/ca.key" -out "$folder/ca.pem" 2>/dev/null
openssl req -newkey rsa:3072 -noenc -subj "/CN=cmrtrials" \
    -keyout "$folder/site.key" -out "$folder/site.csr" 2>/dev/null
openssl x509 -req -in "$folder/site.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial \
    -days "$days" -out "$folder/site.pem" 2>/dev/null
rm "$folder/site.csr"
echo "$folder: ca.pem, site.pem and site.key go to every machine; ca.key stays here and in the back-up"
