#!/usr/bin/env bash
# Makes samples/catalogue: small generated films and files that between them need every path of a media service.
# Nothing is downloaded or filmed. The same ffmpeg gives the same bytes: one thread, no dates, no version tags.
set -euo pipefail
cd "$(dirname "$0")"
command -v ffmpeg >/dev/null || { echo "samples/make.sh: ffmpeg is missing; install it with: ./dev setup install" >&2; exit 1; }

seconds=16
rm -rf catalogue
mkdir -p catalogue/films catalogue/pictures 'catalogue/trip é "day" 100%'

# film VIDEO_SOURCE AUDIO_SOURCE OUTPUT ARGUMENT...
film() {
    local picture=$1 sound=$2 output=$3
    shift 3
    ffmpeg -hide_banner -loglevel error -nostdin -y -threads 1 -filter_threads 1 \
        -f lavfi -i "$picture" -f lavfi -i "$sound" -t "$seconds" \
        -map_metadata -1 -fflags +bitexact -flags:v +bitexact -flags:a +bitexact -threads 1 \
        -pix_fmt yuv420p "$@" "$output"
}
h264=(-c:v libx264 -preset slow -crf 30 -g 50 -keyint_min 50 -sc_threshold 0)
aac=(-c:a aac -b:a 48k -ac 1)
slow_beep="sine=frequency=330:beep_factor=3:sample_rate=48000"

# A seconds counter, so that a seek shows where it landed. Its index (`moov`) is at the end: a player must seek first.
film "testsrc2=size=320x180:rate=25" "$slow_beep" catalogue/films/counter.mp4 "${h264[@]}" "${aac[@]}"

# The index is at the front: plays from the first bytes.
film "mandelbrot=size=320x180:rate=25:end_pts=1200:maxiter=400" "sine=frequency=220:sample_rate=48000" \
    catalogue/films/mandelbrot.mp4 "${h264[@]}" "${aac[@]}" -crf 34 -movflags +faststart

cells="life=size=160x90:rate=12:mold=10:ratio=0.3:seed=7:death_color=#203060:life_color=#f0c040"
film "$cells,scale=320:180:flags=neighbor" "$slow_beep" catalogue/films/life.webm \
    -c:v libvpx-vp9 -row-mt 0 -deadline good -cpu-used 4 -b:v 130k -g 36 -c:a libopus -b:a 24k -ac 1

# No index at all, and no frame that needs a later one: what a live source sends, and what can be cut anywhere.
film "smptehdbars=size=320x180:rate=25,scroll=horizontal=0.004" "$slow_beep" \
    catalogue/films/bars.ts "${h264[@]}" "${aac[@]}" -bf 0 -f mpegts

film "testsrc2=size=640x360:rate=1" "anullsrc" catalogue/pictures/chart.png -frames:v 1 -an -c:v png -pix_fmt rgb24
film "gradients=size=640x360:seed=7:c0=#103050:c1=#f0b040:x0=0:y0=0:x1=640:y1=360:nb_colors=2" "anullsrc" \
    catalogue/pictures/dusk.jpg -frames:v 1 -an -c:v mjpeg -q:v 4 -pix_fmt yuvj420p

# Subtitles of the counter, a line every four seconds, in both usual forms.
{
    for ((n = 0; n < seconds / 4; n++)); do
        printf '%d\n00:00:%02d,000 --> 00:00:%02d,500\nLine %d begins at second %d\n\n' \
            $((n + 1)) $((n * 4)) $((n * 4 + 3)) $((n + 1)) $((n * 4))
    done
} >catalogue/films/counter.srt
{
    printf 'WEBVTT\n\n'
    sed 's/,\([0-9]\{3\}\)/.\1/g' catalogue/films/counter.srt
} >catalogue/films/counter.vtt

cat >'catalogue/trip é "day" 100%/-readme ñ.txt' <<'TEXT'
The name of this file is the point of it: a leading dash, spaces, accents, quotes, and a percent sign
that is no escape.
El nombre es el contenido. O nome é o conteúdo. 名前が中身です。
TEXT
: >catalogue/empty.txt

# `sha256sum -c SHA256SUMS` from this folder checks them.
find catalogue -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum >SHA256SUMS
du -sb catalogue | awk '{ print "samples/catalogue: " $1 " bytes" }'
