// Command go-server is a plain HTTP server whose answers tell its generation.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"strconv"
)

const streamLength = 4 << 20

func main() {
	listen := flag.String("listen", ":8080", "address to listen on")
	generation := flag.Int("generation", 1, "number to answer with")
	flag.Parse()

	line := []byte(strconv.Itoa(*generation) + "\n")
	stream := bytes.Repeat(line, streamLength/len(line)+1)[:streamLength]

	http.HandleFunc("/generation", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, line)
	})
	http.HandleFunc("/stream", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, stream)
	})
	http.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, fmt.Sprintf("read the body: %v", err), http.StatusBadRequest)
			return
		}
		answer(w, line)
	})
	log.Fatal(http.ListenAndServe(*listen, nil))
}

func answer(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		log.Printf("write an answer: %v", err)
	}
}
